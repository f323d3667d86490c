//! The ring with operations other than files'. Files are tested with the real disk.
#![allow(unsafe_code)]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use futures_util::future::poll_immediate;
use glommio::{LocalExecutorBuilder, Placement};
use io_uring::{opcode, types};

use super::*;

fn on_ring<F: Future<Output = ()> + 'static>(
    options: RingOptions,
    test: impl FnOnce(Ring) -> F + Send + 'static,
) {
    let run = move || async move {
        let ring = Ring::new(options).unwrap();
        test(ring.clone()).await;
        ring.shutdown().await;
    };
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    builder.spawn(run).unwrap().join().unwrap();
}

/// The same with tasks told on a board, so that the driver dozes.
fn on_dozing_ring<F: Future<Output = ()> + 'static>(
    options: RingOptions,
    test: impl FnOnce(Ring) -> F + Send + 'static,
) {
    let run = move || async move {
        tasks::write_on(Arc::default());
        let ring = Ring::new(options).unwrap();
        tasks::named("test", test(ring.clone())).await;
        ring.shutdown().await;
    };
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    // As the broker has it: nothing interrupts a run of tasks.
    let builder = builder.preempt_timer(Duration::from_secs(3600));
    builder.spawn(run).unwrap().join().unwrap();
}

fn small() -> RingOptions {
    RingOptions { entries: 4, ..RingOptions::default() }
}

fn receive(ring: &Ring, socket: &Rc<UnixStream>) -> Op {
    let mut buf = BytesMut::with_capacity(64);
    let fd = types::Fd(socket.as_raw_fd());
    let entry = opcode::Recv::new(fd, buf.as_mut_ptr(), 64).build();
    // SAFETY: buffer and socket are kept.
    unsafe { ring.submit(entry, Keep::new(Buffer::BytesMut(buf), socket.clone())) }
}

async fn ping_pong(ring: Ring) {
    let (near, mut far) = UnixStream::pair().unwrap();
    let near = Rc::new(near);
    let echo = std::thread::spawn(move || {
        let mut byte = [0; 1];
        while std::io::Read::read(&mut far, &mut byte).unwrap() == 1 {
            far.write_all(&byte).unwrap();
        }
    });
    for round in 0..5_000u32 {
        (&*near).write_all(&[round as u8]).unwrap();
        assert_eq!(receive(&ring, &near).await.result.unwrap(), 1);
    }
    near.shutdown(std::net::Shutdown::Both).unwrap();
    echo.join().unwrap();
}

#[test]
fn ping_pong_between_threads_never_misses_a_completion() {
    on_ring(small(), ping_pong);
    on_dozing_ring(small(), ping_pong);
}

/// Wake-ups of a task by another thread while the driver dozes, or is about to: nothing but the bell ends a doze here.
#[test]
fn a_doze_ends_when_another_thread_rings() {
    let options = RingOptions { busy_max: Duration::from_secs(3600), ..small() };
    on_dozing_ring(options, |ring| async move {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        let (ask, asked) = std::sync::mpsc::channel::<Waker>();
        let answered = Arc::new(AtomicU64::new(0));
        let (count, doorbell) = (answered.clone(), ring.doorbell());
        let waker = std::thread::spawn(move || {
            for waker in asked {
                count.fetch_add(1, Ordering::SeqCst);
                waker.wake();
                doorbell.ring();
            }
        });
        for round in 1..=5_000 {
            far.write_all(b"x").unwrap();
            assert_eq!(receive(&ring, &near).await.result.unwrap(), 1);
            let mut sent = false;
            std::future::poll_fn(|cx| {
                if !std::mem::replace(&mut sent, true) {
                    ask.send(cx.waker().clone()).unwrap();
                }
                if answered.load(Ordering::SeqCst) == round { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        drop(ask);
        waker.join().unwrap();
    });
}

/// What the executor keeps for itself, such as timers, is looked after while operations go on and on.
#[test]
fn timers_run_beside_a_driver_that_dozes() {
    on_dozing_ring(small(), |ring| async move {
        let done = Rc::new(Cell::new(false));
        let (near, far) = UnixStream::pair().unwrap();
        let (near, far) = (Rc::new(near), Rc::new(far));
        let (own, ended) = (ring.clone(), done.clone());
        tasks::spawn("traffic", async move {
            while !ended.get() {
                (&*far).write_all(b"x").unwrap();
                assert_eq!(receive(&own, &near).await.result.unwrap(), 1);
            }
        });
        for _ in 0..20 {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        done.set(true);
    });
}

/// The executor looks after its timers only when no task can run. Once, a task that yielded over and over kept them, and
/// whatever completed, waiting until its end: here for ever.
#[test]
fn timers_run_beside_a_task_that_only_yields() {
    on_dozing_ring(small(), |ring| async move {
        let done = Rc::new(Cell::new(false));
        let (near, mut far) = UnixStream::pair().unwrap();
        let (near, ended) = (Rc::new(near), done.clone());
        let ended_yielding = Rc::new(Cell::new(false));
        let says = ended_yielding.clone();
        tasks::spawn("stretches", async move {
            while !ended.get() {
                tasks::yield_now().await;
            }
            says.set(true);
        });
        glommio::timer::sleep(Duration::from_millis(1)).await;
        let received = receive(&ring, &near);
        far.write_all(b"x").unwrap();
        assert_eq!(received.await.result.unwrap(), 1);
        ring.sleep(Duration::from_millis(1)).await;
        glommio::timer::sleep(Duration::from_millis(1)).await;
        done.set(true);
        while !ended_yielding.get() {
            tasks::yield_now().await;
        }
    });
}

#[test]
fn more_operations_than_entries_wait_in_the_backlog() {
    on_ring(small(), |ring| async move {
        let pairs: Vec<_> = (0..500).map(|_| UnixStream::pair().unwrap()).collect();
        let (near, mut far): (Vec<_>, Vec<_>) = pairs.into_iter().map(|(a, b)| (Rc::new(a), b)).unzip();
        let receives: Vec<_> = near.iter().map(|socket| receive(&ring, socket)).collect();
        assert_eq!(ring.in_flight(), 500);
        glommio::timer::sleep(Duration::from_millis(5)).await;
        // More completions at once than the completion queue holds.
        far.iter_mut().for_each(|socket| socket.write_all(b"x").unwrap());
        for receive in receives {
            assert_eq!(receive.await.result.unwrap(), 1);
        }
        assert_eq!(ring.in_flight(), 0);
    });
}

#[test]
fn dropping_cancels_before_and_after_submission() {
    on_ring(small(), |ring| async move {
        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Rc::new(near);
        for round in 0..100 {
            let mut receive = Box::pin(receive(&ring, &near));
            assert!(poll_immediate(receive.as_mut()).await.is_none());
            if round % 2 == 0 {
                glommio::timer::sleep(Duration::from_micros(100)).await;
            }
        }
        while ring.in_flight() > 0 {
            glommio::timer::sleep(Duration::from_micros(100)).await;
        }
        assert_eq!(Rc::strong_count(&near), 1, "cancelled operations released their socket");
        far.write_all(b"kept").unwrap();
        assert_eq!(receive(&ring, &near).await.result.unwrap(), 4);
    });
}

#[test]
fn an_idle_ring_makes_no_system_calls() {
    on_ring(RingOptions::default(), |ring| async move {
        let (near, _far) = UnixStream::pair().unwrap();
        let _waiting = receive(&ring, &Rc::new(near));
        glommio::timer::sleep(Duration::from_millis(5)).await;
        let before = ring.enters();
        glommio::timer::sleep(Duration::from_millis(50)).await;
        assert_eq!(ring.enters(), before);
    });
}
