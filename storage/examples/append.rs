//! Durable append throughput of one store on a real disk.
//!
//! `cargo run --release -p penstock-storage --example append -- DIR [LOGS] [BATCH_BYTES] [SECONDS] [IN_FLIGHT]`
//!
//! Every log has one producer that keeps IN_FLIGHT batches unacknowledged. Old segments are deleted, so that after the
//! first seconds files are recycled, as on a broker in service. Compare with a raw group-commit writer on the same disk.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use glommio::{LocalExecutorBuilder, Placement};
use penstock_format::{Batch, BatchHeader};
use penstock_storage::disk::real::RealDisk;
use penstock_storage::disk::ring::{Ring, RingOptions};
use penstock_storage::disk::workers::Workers;
use penstock_storage::{AppendContext, Log, LogConfig, Origin, Store, StoreConfig};

/// Bytes kept per log.
const RETENTION_BYTES: i64 = 128 << 20;

/// What producers saw.
#[derive(Default)]
struct Seen {
    /// Bytes acknowledged.
    acked: Cell<u64>,
    latencies_us: RefCell<Vec<u32>>,
}

#[derive(Clone)]
struct Load {
    dir: PathBuf,
    logs: usize,
    batch_bytes: usize,
    duration: Duration,
    in_flight: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize, default: usize| arguments.get(at).map_or(default, |text| text.parse().expect("number"));
    let load = Load {
        dir: PathBuf::from(arguments.first().expect("directory")),
        logs: number(1, 16),
        batch_bytes: number(2, 65_536),
        duration: Duration::from_secs(number(3, 30) as u64),
        in_flight: number(4, 5),
    };
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    executor.spawn(move || run(load)).expect("executor").join().expect("run");
}

async fn run(load: Load) {
    let ring = Ring::new(RingOptions::default()).expect("ring");
    let disk = RealDisk::new(ring.clone(), Workers::new(2).expect("workers"));
    let (store, report) = Store::open(disk, &load.dir, StoreConfig::default(), 0).await.expect("open");
    if report.frames_replayed > 0 {
        eprint(&format!("replayed {} frames, {} bytes", report.frames_replayed, report.bytes_replayed));
    }
    let config = LogConfig { retention_bytes: RETENTION_BYTES, ..LogConfig::default() };
    let body = Bytes::from(vec![7_u8; load.batch_bytes - 61]);
    let batch = Batch::seal(BatchHeader { record_count: 1, ..BatchHeader::default() }, body).expect("batch");
    let seen = Rc::new(Seen::default());
    let end = Instant::now() + load.duration;
    let mut producers = Vec::new();
    for n in 0..load.logs {
        let name = format!("bench-{n}");
        let log = match store.log(&name) {
            Some(log) => log,
            None => store.create_log(&name, config.clone()).await.expect("create"),
        };
        log.set_config(config.clone());
        for _ in 0..load.in_flight {
            let (log, store, batch) = (log.clone(), store.clone(), batch.clone());
            producers.push(glommio::spawn_local(produce(store, log, batch, end, seen.clone())));
        }
    }
    let watched = (store.clone(), seen.clone());
    let watcher = glommio::spawn_local(async move {
        let mut before = watched.1.acked.get();
        while Instant::now() < end {
            glommio::timer::sleep(Duration::from_secs(1)).await;
            watched.0.tick(0).await;
            let now = watched.1.acked.get();
            eprint(&format!("{} MB/s", (now - before) / 1_000_000));
            before = now;
        }
    });
    for producer in producers {
        producer.await;
    }
    watcher.await;
    let mut latencies = seen.latencies_us.take();
    latencies.sort_unstable();
    let quantile = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let stats = store.stats();
    eprint(&format!(
        "{} logs, {} byte batches, {} in flight: {:.0} MB/s, ack p50 {} p99 {} p99.9 {} us, {:?}",
        load.logs,
        load.batch_bytes,
        load.in_flight,
        seen.acked.get() as f64 / load.duration.as_secs_f64() / 1e6,
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        stats,
    ));
    store.close().await.expect("close");
    drop(store);
    ring.shutdown().await;
}

async fn produce(store: Store<RealDisk>, log: Log<RealDisk>, batch: Batch, end: Instant, seen: Rc<Seen>) {
    let context = AppendContext { leader_epoch: 0, now_ms: 0, origin: Origin::Client };
    while Instant::now() < end {
        let begun = Instant::now();
        let appended = {
            let _room = store.reserve(batch.len()).await.expect("room");
            log.append(vec![batch.clone()], context).expect("append")
        };
        log.durable(appended.ticket).await.expect("durable");
        seen.acked.set(seen.acked.get() + batch.len() as u64);
        seen.latencies_us.borrow_mut().push(begun.elapsed().as_micros() as u32);
    }
}

#[allow(clippy::print_stderr)]
fn eprint(line: &str) {
    eprintln!("{line}");
}
