//! The offline check against the engine: what it says of a store's files, and what recovery makes of the same files.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use super::crash::{Book, work};
use super::*;
use crate::disk::sim::Crash;
use crate::disk::{BLOCK, DirEntry, Disk, DiskFile};
use crate::offline::view::{self, EntryView};
use crate::offline::{CheckReport, Files, OfflineStore, OpenFault, check_store};
use crate::segment::DATA_START;

/// The files of a disk at one moment.
#[derive(Clone, Default)]
pub(super) struct Dump(BTreeMap<PathBuf, Vec<u8>>);

impl Files for Dump {
    fn read(&self, path: &Path, position: u64, len: u64) -> io::Result<Bytes> {
        let file = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        let from = (position as usize).min(file.len());
        let to = (from + len as usize).min(file.len());
        Ok(Bytes::copy_from_slice(&file[from..to]))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(self.0.get(path).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let below = self.0.keys().filter(|path| path.starts_with(dir));
        let entry = |path: &PathBuf| DirEntry {
            name: path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned(),
            len: self.0[path].len() as u64,
            is_dir: false,
        };
        Ok(below.map(entry).collect())
    }
}

pub(super) async fn dump(disk: &SimDisk) -> Dump {
    let mut files = BTreeMap::new();
    let mut dirs = vec![PathBuf::from(DIR)];
    while let Some(dir) = dirs.pop() {
        if !disk.exists(&dir).await.unwrap() {
            continue;
        }
        for entry in disk.list(&dir).await.unwrap() {
            let path = dir.join(&entry.name);
            if entry.is_dir {
                dirs.push(path);
                continue;
            }
            let mut bytes = Vec::new();
            if entry.len.is_multiple_of(BLOCK as u64) {
                let file = disk.open(&path).await.unwrap();
                bytes = file.read_at(0, entry.len as usize).await.unwrap().to_vec();
            } else {
                bytes.extend(disk.read_small(&path, 1 << 30).await.unwrap());
            }
            files.insert(path, bytes);
        }
    }
    Dump(files)
}

pub(super) fn check(files: &Dump) -> CheckReport {
    check_store(files, Path::new(DIR)).unwrap()
}

/// Two logs, one with batches of all sizes over several segments, closed or not.
fn filled(closed: bool) -> Dump {
    let world = world(7);
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk.clone(), small()).await;
        let log = store.create_log("a", log_config()).await.unwrap();
        let other = store.create_log("b", log_config()).await.unwrap();
        for n in 0..40 {
            let len = if n % 3 == 0 { 18_000 } else { 300 + 40 * n };
            let appended = log.append(vec![batch(2, len, n as u64, 1000)], client(1000)).unwrap();
            log.durable(appended.ticket).await.unwrap();
            let appended = other.append(vec![batch(1, 200, n as u64, 1000)], client(1000)).unwrap();
            other.durable(appended.ticket).await.unwrap();
        }
        if closed {
            store.close().await.unwrap();
        }
        dump(&disk).await
    })
}

#[test]
fn a_store_is_clean_closed_or_not() {
    for closed in [true, false] {
        let report = check(&filled(closed));
        assert_eq!(report.findings, []);
        assert_eq!((report.logs, report.batches, report.torn), (2, 80, None));
        assert_eq!(report.frames > 0, !closed);
        assert!(report.segments > 3, "log a spans several segments: {report:?}");
    }
    assert_eq!(check(&Dump::default()), CheckReport::default(), "a store that was never opened");
}

/// Where each batch of log `a` stands: path, position, length, first and last offset.
fn batches(files: &Dump) -> Vec<(PathBuf, u64, usize, i64)> {
    let store = OfflineStore::open(files, Path::new(DIR)).unwrap();
    let mut found = Vec::new();
    for segment in &store.log("a").unwrap().segments {
        for view in segment.batches(files) {
            let view = view.unwrap();
            let header = view.batch.header;
            found.push((segment.path.clone(), view.position, header.total_len(), header.base_offset));
        }
    }
    found
}

#[test]
fn a_flipped_bit_anywhere_in_a_batch_is_found_and_named() {
    let files = filled(true);
    for (path, position, len, offset) in batches(&files) {
        for at in [0, 7, 8, 11, 12, 15, 16, 17, 20, 21, 30, 60, len / 2, len - 1] {
            let mut bad = files.clone();
            bad.0.get_mut(&path).unwrap()[position as usize + at] ^= 0x40;
            let findings = check(&bad).findings;
            let first = findings.first().unwrap_or_else(|| panic!("byte {at} of offset {offset}"));
            assert_eq!(first.log.as_deref(), Some("a"));
            // The offset is outside of the crc: where it grows, what follows goes back.
            if !(0..8).contains(&at) {
                assert_eq!((first.offset, first.position), (Some(offset), Some(position)), "byte {at}");
            }
        }
    }
}

#[test]
fn damage_beside_the_batches_is_found() {
    let files = filled(true);
    let (path, ..) = batches(&files).swap_remove(0);
    let damaged = |path: &Path, at: usize| {
        let mut bad = files.clone();
        bad.0.get_mut(path).unwrap()[at] ^= 1;
        check(&bad).findings
    };
    assert!(damaged(&path, 20)[0].what.contains("header is damaged"));
    let checkpoint = Path::new(DIR).join("checkpoint");
    let found = damaged(&checkpoint, 100);
    assert!(found[0].what.contains("it is damaged"), "{found:?}");
    assert_eq!(found[0].file.as_deref(), Some(checkpoint.as_path()));
    let mut gone = files.clone();
    gone.0.remove(&path);
    assert!(check(&gone).findings[0].what.contains("is missing"));
    gone.0.remove(&checkpoint);
    assert!(check(&gone).findings[0].what.contains("takes its copy"));
    gone.0.remove(&checkpoint.with_extension("copy"));
    assert!(check(&gone).findings[0].what.contains("missing although there are logs"));
    let mut newer = files.clone();
    let bytes = newer.0.get_mut(&checkpoint).unwrap();
    bytes[4] = 99;
    let content = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..content]);
    bytes[content..].copy_from_slice(&crc.to_le_bytes());
    let fault = check_store(&newer, Path::new(DIR)).unwrap_err();
    assert!(matches!(fault, OpenFault::NewerVersion { version: 99, .. }), "{fault}");
}

#[test]
fn damaged_frames_are_found_if_they_were_stable_and_dropped_if_not() {
    let files = filled(false);
    let mut frames = Vec::new();
    for path in files.0.keys().filter(|path| path.extension().is_some_and(|end| end == "journal")) {
        view::frames(&files, path, |frame| {
            frames.push((path.clone(), frame));
            Ok::<_, OpenFault>(())
        })
        .unwrap();
    }
    let run = frames.iter().map(|(_, frame)| frame.run).max().unwrap();
    frames.retain(|(_, frame)| frame.run == run);
    let last = frames.iter().map(|(_, frame)| frame.seq).max().unwrap();
    let stable = frames.iter().map(|(_, frame)| frame.durable_seq).max().unwrap();
    frames.retain(|(_, frame)| matches!(frame.entries.first(), Some(EntryView::Append { .. })));
    assert!(stable < last && frames.len() > 1);
    let whole = check(&files);
    let replayed = last - whole.frames + 1;
    for (path, frame) in frames.iter().filter(|(_, frame)| frame.seq >= replayed) {
        // A byte of the entries, then the last of the inline bytes.
        for at in [60, frame.len as usize - 1] {
            let mut bad = files.clone();
            bad.0.get_mut(path).unwrap()[frame.position as usize + at] ^= 1;
            let report = check(&bad);
            if frame.seq > stable {
                // No later frame says that it was.
                assert_eq!(report.findings, [], "frame {}, byte {at}", frame.seq);
                assert!(report.frames < whole.frames);
            } else {
                assert!(!report.findings.is_empty(), "frame {}, byte {at}", frame.seq);
            }
        }
    }
}

/// After any crash the check finds nothing, and what it takes for live is what recovery brings back.
fn crash(seed: u64) {
    let mut world = world(seed);
    let book: Book = Book::default();
    for life in 0..3 {
        let (disk, inner, told) = (world.disk(), world.clone(), book.clone());
        let until = world.steps() + 1 + world.random(if life == 0 { 400 } else { 4000 });
        world.block_on_until(until, async move {
            let (store, _) = open(disk, small()).await;
            for part in 0..3 {
                inner.spawn(work(inner.clone(), store.clone(), format!("p-{part}"), told.clone()));
            }
            std::future::pending::<()>().await;
        });
        world = world.crash(if world.random(4) == 0 { Crash::Kill } else { Crash::PowerLoss });
        let disk = world.disk();
        world.block_on(async move {
            let files = dump(&disk).await;
            assert_eq!(check(&files).findings, [], "seed {seed}, life {life}");
            let offline = OfflineStore::open(&files, Path::new(DIR)).unwrap();
            let (store, _) = open(disk, small()).await;
            assert_eq!(offline.logs().count(), store.logs().len(), "seed {seed}, life {life}");
            for log in store.logs() {
                let seen = offline.log(&log.name()).unwrap();
                let named = (seed, life, log.name());
                assert_eq!(
                    (seen.start_offset, seen.end_offset),
                    (log.log_start_offset(), log.log_end_offset())
                );
                let views = seen.segments.iter().flat_map(|segment| segment.batches(&files));
                let batches: Vec<Batch> = views.map(|view| view.unwrap().batch).collect();
                assert!(batches == read_all(&log).await, "{named:?}");
                assert!(seen.segments.iter().all(|segment| segment.end > DATA_START), "{named:?}");
            }
            // Not closed: the next life begins with another recovery.
        });
    }
}

#[test]
fn check_and_recovery_agree_after_crashes() {
    (0..60).for_each(crash);
}

/// Whatever stands in the files, it is looked at to the end: no panic, and no error but that it is of a newer version.
#[test]
fn any_bytes_are_looked_at() {
    let files = [filled(false), filled(true)];
    let world = world(11);
    for round in 0..1500 {
        let mut bad = files[round % 2].clone();
        for _ in 0..=world.random(3) {
            let at = world.random(bad.0.len() as u64) as usize;
            let (path, bytes) = bad.0.iter_mut().nth(at).unwrap();
            let len = bytes.len() as u64;
            // Most damage at the beginning, where there is most to be misread.
            let near = if world.random(2) == 0 { len.min(512) } else { len };
            let from = world.random(near.max(1)) as usize;
            match world.random(4) {
                0 => bytes.truncate(from),
                1 => bytes.iter_mut().skip(from).take(64).for_each(|byte| *byte = 0xff),
                _ => bytes.iter_mut().skip(from).take(1).for_each(|byte| *byte ^= 1 << world.random(8)),
            }
            // Wrong content under a right crc leads farther.
            if path.ends_with("checkpoint") && world.random(2) == 0 && bytes.len() > 4 {
                let content = bytes.len() - 4;
                let crc = crc32c::crc32c(&bytes[..content]);
                bytes[content..].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let checked = check_store(&bad, Path::new(DIR));
        assert!(matches!(checked, Ok(_) | Err(OpenFault::NewerVersion { .. })), "round {round}: {checked:?}");
        for path in bad.0.keys() {
            let seen = [
                view::checkpoint(&bad, path).map(drop),
                view::segment_header(&bad, path).map(drop),
                view::index(&bad, path).map(drop),
                view::frames(&bad, path, |_| Ok::<_, OpenFault>(())),
            ];
            let is_io = |seen: &Result<(), OpenFault>| matches!(seen, Err(OpenFault::Io { .. }));
            assert!(!seen.iter().any(is_io), "round {round}, {}", path.display());
        }
    }
}
