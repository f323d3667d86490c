use futures_util::future::join;

use super::*;
use crate::Store;
use crate::disk::sim::SimDisk;
use crate::log::Log;
use crate::tests::{batch, client, log_config, open, small, world};

/// Length of a batch: small enough to go inline.
const LEN: usize = 3000;

/// Three logs with a batch each that is stable and not settled: nobody asked for that.
async fn unsettled(disk: &SimDisk) -> (Store<SimDisk>, [Log<SimDisk>; 3]) {
    let (store, _) = open(disk.clone(), small()).await;
    let mut logs = Vec::new();
    for name in ["a-0", "b-0", "c-0"] {
        let log = store.create_log(name, log_config()).await.unwrap();
        let appended = log.append(vec![batch(1, LEN, 1, 1)], client(0)).unwrap();
        log.durable(appended.ticket).await.unwrap();
        logs.push(log);
    }
    let is_ready =
        |log: &Log<SimDisk>| log.inner.state.borrow().segments.iter().all(|segment| segment.is_ready());
    wait_until(disk, || logs.iter().all(is_ready)).await;
    assert!(logs.iter().all(|log| has_unsettled(&log.inner)));
    (store, logs.try_into().unwrap_or_else(|_| panic!("they are three")))
}

/// Lets others go on until `done`, which must be soon.
async fn wait_until(disk: &SimDisk, done: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if done() {
            return;
        }
        disk.sleep(Duration::from_millis(1)).await;
    }
    panic!("it never is");
}

async fn settle_one(log: &Log<SimDisk>) {
    settle(&log.store, |other| other.id == log.inner.id && has_unsettled(other)).await.unwrap();
}

#[test]
fn nothing_is_settled_but_what_has_to_be() {
    let world = world(50);
    let disk = world.disk();
    world.block_on(async move {
        let (store, [a, b, c]) = unsettled(&disk).await;
        settle_one(&b).await;
        assert_eq!([&a, &b, &c].map(|log| has_unsettled(&log.inner)), [true, false, true]);
        settle_one(&a).await;
        assert_eq!([&a, &b, &c].map(|log| has_unsettled(&log.inner)), [false, false, true]);
        // What is not wanted and has nothing left is not looked at again.
        assert_eq!(a.store.dirty.borrow().len(), 1);
        store.remove_log("c-0").await.unwrap();
        settle_one(&a).await;
        assert_eq!(a.store.dirty.borrow().len(), 0);
        store.close().await.unwrap();
    });
}

/// Where there is more to write behind the next pass would begin as soon as one ends.
#[test]
fn who_has_to_have_a_log_settled_comes_before_the_next_pass() {
    for seed in 0..20 {
        let world = world(seed);
        let disk = world.disk();
        world.block_on(comes_before_the_next_pass(disk));
    }
}

async fn comes_before_the_next_pass(disk: SimDisk) {
    let (store, [a, b, _]) = unsettled(&disk).await;
    let writeback = &a.store.writeback;
    writeback.begin_pass(|| true).await;
    writeback.asked.set(true);
    a.store.work.wake_all();
    let settled = async {
        settle_one(&b).await;
        has_unsettled(&a.inner)
    };
    let end_of_pass = async {
        wait_until(&disk, || writeback.settling.get() > 0).await;
        writeback.running.set(false);
        writeback.ended.wake_all();
    };
    let (others_wait, ()) = join(settled, end_of_pass).await;
    assert!(others_wait && !has_unsettled(&b.inner));
    // Their turn comes.
    wait_until(&disk, || !has_unsettled(&a.inner)).await;
    writeback.asked.set(false);
    store.close().await.unwrap();
}
