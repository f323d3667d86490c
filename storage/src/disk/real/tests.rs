//! The real disk on a real file system, in a temporary directory.

use std::pin::pin;

use futures_util::future::{join_all, poll_immediate};
use glommio::{LocalExecutorBuilder, Placement};
use tempfile::TempDir;

use super::*;
use crate::disk::ring::{Buffer, Keep, RingOptions};

/// Runs a test on an executor of its own with a small ring, so that its queues overflow.
fn on_disk<F: Future<Output = ()> + 'static>(test: impl FnOnce(RealDisk, PathBuf) -> F + Send + 'static) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().to_owned();
    let workers = Workers::new(2).unwrap();
    let run = move || async move {
        let options = RingOptions { entries: 8, blocking_workers: 4, ..RingOptions::default() };
        let ring = Ring::new(options).unwrap();
        test(RealDisk::new(ring.clone(), workers), path).await;
        ring.shutdown().await;
        assert_eq!(ring.in_flight(), 0);
    };
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    builder.spawn(run).unwrap().join().unwrap();
}

fn filled(value: u8, blocks: usize) -> Bytes {
    let mut buf = AlignedBuf::zeroed(blocks * BLOCK);
    buf.fill(value);
    buf.freeze()
}

#[test]
fn writes_reads_and_grows() {
    on_disk(|disk, dir| async move {
        let path = dir.join("a");
        let file = disk.create(&path, 8 * BLOCK as u64).await.unwrap();
        assert_eq!(file.size(), 8 * BLOCK as u64);
        let taken = disk.create(&path, 0).await.err().unwrap();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        // Three reads' worth, past the end.
        let large = filled(3, 3 * 256);
        file.write_at(large.clone(), 4 * BLOCK as u64).await.unwrap();
        file.sync_data().await.unwrap();
        assert_eq!(file.size(), (4 * BLOCK + large.len()) as u64);
        let again = disk.open(&path).await.unwrap();
        assert_eq!(again.size(), file.size());
        let read = again.read_at(0, 4 * BLOCK + large.len() + BLOCK).await.unwrap();
        assert_eq!(read.len() as u64, file.size());
        assert!(read[..4 * BLOCK].iter().all(|byte| *byte == 0) && read[4 * BLOCK..] == large);
        assert!(again.read_at(1 << 30, BLOCK).await.unwrap().is_empty());
    });
}

#[test]
fn a_file_that_ends_within_a_block_reads_to_its_end() {
    on_disk(|disk, dir| async move {
        let path = dir.join("odd");
        fs::write(&path, vec![9; BLOCK + 100]).unwrap();
        let read = disk.open(&path).await.unwrap().read_at(0, 4 * BLOCK).await.unwrap();
        assert_eq!(read.len(), BLOCK + 100);
    });
}

#[test]
fn names_and_small_files() {
    on_disk(|disk, dir| async move {
        let deep = dir.join("x/y");
        disk.create_dir_all(&deep).await.unwrap();
        disk.write_small(&deep.join("small"), Bytes::from_static(b"one")).await.unwrap();
        disk.write_small(&deep.join("small"), Bytes::from_static(b"two")).await.unwrap();
        assert_eq!(disk.read_small(&deep.join("small"), 3).await.unwrap(), b"two");
        let long = disk.read_small(&deep.join("small"), 2).await.unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData);
        disk.rename(&deep.join("small"), &deep.join("b")).await.unwrap();
        disk.create(&deep.join("a"), BLOCK as u64).await.unwrap();
        disk.create_dir_all(&deep.join("d")).await.unwrap();
        disk.sync_dir(&deep).await.unwrap();
        let entry = |name: &str, len, is_dir| DirEntry { name: name.into(), len, is_dir };
        let expected = [entry("a", BLOCK as u64, false), entry("b", 3, false), entry("d", 0, true)];
        assert_eq!(disk.list(&deep).await.unwrap(), expected);
        disk.remove(&deep.join("b")).await.unwrap();
        assert!(!disk.exists(&deep.join("b")).await.unwrap());
        disk.remove_dir_all(&dir.join("x")).await.unwrap();
        let gone = disk.open(&deep.join("a")).await.err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn many_operations_at_once_through_a_small_ring() {
    on_disk(|disk, dir| async move {
        let tasks = (0..16u8).map(|number| {
            let (disk, path) = (disk.clone(), dir.join(number.to_string()));
            async move {
                let file = disk.create(&path, 0).await.unwrap();
                for round in 0..20u8 {
                    let writes =
                        (0..16).map(|block| file.write_at(filled(number ^ round, 1), block * BLOCK as u64));
                    join_all(writes).await.into_iter().for_each(Result::unwrap);
                    file.sync_data().await.unwrap();
                    let read = file.read_at(0, 16 * BLOCK).await.unwrap();
                    assert!(read.len() == 16 * BLOCK && read.iter().all(|byte| *byte == number ^ round));
                }
            }
        });
        join_all(tasks).await;
    });
}

#[test]
fn a_file_that_is_opened_for_nobody_is_closed() {
    on_disk(|disk, dir| async move {
        let path = dir.join("a");
        drop(disk.create(&path, BLOCK as u64).await.unwrap());
        let held = || {
            let descriptors = fs::read_dir("/proc/self/fd").unwrap();
            descriptors
                .filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to == path))
                .count()
        };
        let opened = disk.open(&path).await.unwrap();
        assert_eq!(held(), 1, "what is looked for is found");
        for turns in [0, 1, 2, 50] {
            let mut opening = Box::pin(disk.open(&path));
            assert!(poll_immediate(opening.as_mut()).await.is_none());
            for _ in 0..turns {
                disk.yield_now().await;
            }
            drop(opening);
            while disk.ring.in_flight() > 0 {
                disk.yield_now().await;
            }
            assert_eq!(held(), 1, "dropped after {turns} turns");
        }
        drop(opened);
        assert_eq!(held(), 0);
        let gone = disk.open(&dir.join("b")).await.err().unwrap();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let odd = disk.open(Path::new("a\0b")).await.err().unwrap();
        assert_eq!(odd.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn dropped_futures_keep_their_memory_until_the_kernel_is_done() {
    on_disk(|disk, dir| async move {
        let file = disk.create(&dir.join("a"), 1 << 20).await.unwrap();
        for round in 0..200u64 {
            let write = file.write_at(filled(1, 16), round % 16 * 16 * BLOCK as u64);
            let read = file.read_at(0, 1 << 18);
            // Begun, then dropped; in half of the rounds after the kernel has seen them.
            let (mut write, mut read) = (Box::pin(write), Box::pin(read));
            assert!(poll_immediate(write.as_mut()).await.is_none());
            assert!(poll_immediate(read.as_mut()).await.is_none());
            if round % 2 == 0 {
                disk.yield_now().await;
            }
        }
        // Nobody else's data is harmed: whatever was written is whole blocks of ones.
        drop(file.clone());
        file.sync_data().await.unwrap();
        let read = file.read_at(0, 1 << 20).await.unwrap();
        assert!(read.chunks(BLOCK).all(|block| block.iter().all(|byte| *byte == block[0])));
    });
}

#[test]
fn shutdown_settles_what_is_in_flight_and_refuses_what_comes() {
    on_disk(|disk, dir| async move {
        let file = disk.create(&dir.join("a"), 1 << 20).await.unwrap();
        let mut write = pin!(file.write_at(filled(1, 256), 0));
        assert!(poll_immediate(write.as_mut()).await.is_none());
        let endless = endless_poll(&disk.ring);
        disk.ring.shutdown().await;
        let written = write.await;
        assert!(written.is_ok() || written.unwrap_err().raw_os_error() == Some(libc::ECANCELED));
        assert_eq!(endless.await.result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        let late = file.sync_data().await.unwrap_err();
        assert_eq!(late.raw_os_error(), Some(libc::ECANCELED));
    });
}

/// An operation that never completes by itself.
#[allow(unsafe_code)]
fn endless_poll(ring: &Ring) -> crate::disk::ring::Op {
    let (quiet, other) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(&quiet));
    let entry = io_uring::opcode::PollAdd::new(fd, libc::POLLIN as u32).build();
    // SAFETY: no memory; both sockets are kept.
    unsafe { ring.submit(entry, Keep { buffer: Buffer::None, owner: Some(Rc::new((quiet, other))) }) }
}

#[test]
fn timers_run_beside_a_busy_ring() {
    on_disk(|disk, dir| async move {
        let file = disk.create(&dir.join("a"), 1 << 20).await.unwrap();
        let stop = Rc::new(Cell::new(false));
        let (busy, stopped) = (file.clone(), stop.clone());
        disk.spawn("test", async move {
            while !stopped.get() {
                let reads = (0..4).map(|_| busy.read_at(0, BLOCK));
                join_all(reads).await.into_iter().for_each(|read| drop(read.unwrap()));
            }
        });
        for _ in 0..20 {
            disk.sleep(Duration::from_millis(1)).await;
        }
        stop.set(true);
    });
}

#[test]
fn a_panicking_job_is_an_error_of_its_caller() {
    on_disk(|disk, _| async move {
        let failed = disk.workers.run(|| -> io::Result<()> { panic!("planted") }).await;
        assert!(failed.is_err());
        disk.workers.run(|| Ok(())).await.unwrap();
    });
}
