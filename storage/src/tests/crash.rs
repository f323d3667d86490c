//! Random work, a crash at a random step, and what must hold afterwards.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::disk::sim::Crash;

/// What the world was told, by log: every batch appended, and how far it was acknowledged.
#[derive(Default)]
pub(super) struct Told {
    appended: BTreeMap<i64, Batch>,
    acknowledged: i64,
}

pub(super) type Book = Rc<RefCell<BTreeMap<String, Told>>>;

pub(super) async fn work(world: SimWorld, store: Store<SimDisk>, name: String, book: Book) {
    let log = match store.log(&name) {
        Some(log) => log,
        None => store.create_log(&name, log_config()).await.unwrap(),
    };
    book.borrow_mut().entry(name.clone()).or_default();
    for n in 0.. {
        let len = match world.random(4) {
            0 => 70 + world.random(300) as usize,
            1 => 20_000 + world.random(30_000) as usize,
            _ => 100 + world.random(9000) as usize,
        };
        let batch = batch(1 + world.random(5) as i32, len, n, 1000);
        let Ok(_room) = store.reserve(len).await else { return };
        let Ok(appended) = log.append(vec![batch.clone()], client(1000)) else {
            world.disk().sleep(std::time::Duration::from_millis(1)).await;
            continue;
        };
        let mut stored = batch;
        (stored.header.base_offset, stored.header.partition_leader_epoch) = (appended.base_offset, 3);
        book.borrow_mut().get_mut(&name).unwrap().appended.insert(appended.base_offset, stored);
        if world.random(3) > 0 && log.durable(appended.ticket).await.is_ok() {
            let mut book = book.borrow_mut();
            let told = book.get_mut(&name).unwrap();
            told.acknowledged = told.acknowledged.max(appended.last_offset + 1);
        }
    }
}

use crate::disk::Disk;

async fn verify(store: Store<SimDisk>, book: Book) {
    let names: Vec<String> = book.borrow().keys().cloned().collect();
    for name in names {
        let acknowledged = book.borrow()[&name].acknowledged;
        let Some(log) = store.log(&name) else {
            assert_eq!(acknowledged, 0, "log {name} is gone");
            continue;
        };
        assert_eq!(log.offline(), None);
        assert!(log.log_end_offset() >= acknowledged, "{name}: {} < {acknowledged}", log.log_end_offset());
        let batches = read_all(&log).await;
        let mut book = book.borrow_mut();
        let told = book.get_mut(&name).unwrap();
        told.appended.retain(|base, _| *base < log.log_end_offset());
        let expected: Vec<Batch> = told.appended.values().cloned().collect();
        assert!(batches == expected, "log {name} differs");
        told.acknowledged = log.log_end_offset();
    }
}

fn run(seed: u64) {
    let _named = Named(seed);
    let mut world = world(seed);
    let book: Book = Rc::default();
    for life in 0..4 {
        let disk = world.disk();
        let (inner, told) = (world.clone(), book.clone());
        let steps = 1 + world.random(if life == 0 { 400 } else { 4000 });
        let begun = world.steps();
        world.block_on_until(begun + steps, async move {
            let (store, report) = open(disk.clone(), small()).await;
            assert_eq!(report.offline, []);
            verify(store.clone(), told.clone()).await;
            for part in 0..3 {
                let name = format!("p-{part}");
                inner.spawn(work(inner.clone(), store.clone(), name, told.clone()));
            }
            std::future::pending::<()>().await;
        });
        let crash = if world.random(4) == 0 { Crash::Kill } else { Crash::PowerLoss };
        world = world.crash(crash);
    }
    let disk = world.disk();
    world.block_on(async move {
        let (store, _) = open(disk, small()).await;
        verify(store.clone(), book).await;
        store.close().await.unwrap();
    });
}

/// Says which seed failed.
struct Named(u64);

impl Drop for Named {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={}", self.0);
        }
    }
}

#[test]
fn no_crash_loses_what_was_acknowledged() {
    // One seed alone: SEED=n; more of them: SEEDS=n.
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let count = std::env::var("SEEDS").ok().and_then(|seed| seed.parse().ok()).unwrap_or(60);
    for seed in first.map_or(0..count, |seed| seed..seed + 1) {
        run(seed);
    }
}
