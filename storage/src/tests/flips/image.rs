//! A small store with something of everything, and what it was told: the truth that a start is held against.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use penstock_format::{BatchBuilder, NewRecord};

use super::*;
use crate::disk::Disk;
use crate::disk::sim::Crash;
use crate::{Origin, ProducerState, StoreConfig, TimestampOffset};

/// Limits so small that a few kilobytes meet them.
pub(in crate::tests) fn tiny() -> StoreConfig {
    StoreConfig {
        journal_file_bytes: 64 << 10,
        segment_bytes_max: 20 << 10,
        index_worth_bytes: 512,
        direct_bytes_min: 8 << 10,
        recycle_bytes_max: 16 << 10,
        ..small()
    }
}

/// How the image was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tests) enum Left {
    /// Closed.
    Closed,
    /// Killed after a pause, so that its last frame is vouched for.
    Killed,
    /// Killed at once: nothing vouches for the last frame.
    Torn,
}

/// What one log holds.
#[derive(Debug, Clone, Default)]
pub(in crate::tests) struct LogTruth {
    pub start: i64,
    pub end: i64,
    /// By base offset, as appended.
    pub batches: BTreeMap<i64, Batch>,
    /// First offset that the last frame alone holds.
    pub last_frame_from: i64,
    pub producers: Vec<ProducerState>,
    /// By time asked for.
    pub times: BTreeMap<i64, Option<TimestampOffset>>,
    pub newest: Option<TimestampOffset>,
}

impl LogTruth {
    /// The batch that holds the offset, or, where there is none, the next.
    pub(in crate::tests) fn batch_for(&self, offset: i64) -> &Batch {
        self.batches.values().find(|batch| batch.header.next_offset() > offset).unwrap()
    }
}

/// Files, and what they hold.
#[derive(Clone)]
pub(in crate::tests) struct Image {
    pub files: BTreeMap<PathBuf, Bytes>,
    pub logs: BTreeMap<String, LogTruth>,
}

/// A batch of real records, one for each time.
fn records(times: &[i64], value_len: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for timestamp in times {
        let value: Vec<u8> = (0..value_len).map(|at| (at as i64 * 7 + timestamp) as u8).collect();
        builder
            .append(&NewRecord { timestamp: *timestamp, value: Some(&value), ..NewRecord::default() })
            .unwrap();
    }
    builder.finish().unwrap()
}

/// Appends to logs and takes note.
struct Writer {
    store: Store<SimDisk>,
    logs: BTreeMap<String, LogTruth>,
}

impl Writer {
    async fn append(&mut self, name: &str, mut batch: Batch, epoch: i32) {
        let log = self.store.log(name).unwrap();
        let replica = batch.header.base_offset > 0;
        let origin = if replica { Origin::Replica } else { Origin::Client };
        let context = AppendContext { leader_epoch: epoch, now_ms: 1000, origin };
        (batch.header.partition_leader_epoch) = epoch;
        let appended = log.append(vec![batch.clone()], context).unwrap();
        log.durable(appended.ticket).await.unwrap();
        batch.header.base_offset = appended.base_offset;
        let truth = self.logs.get_mut(name).unwrap();
        truth.batches.insert(appended.base_offset, batch);
        truth.end = appended.last_offset + 1;
        for truth in self.logs.values_mut() {
            truth.last_frame_from = truth.end;
        }
        self.logs.get_mut(name).unwrap().last_frame_from = appended.base_offset;
    }

    /// The part of every log that goes first.
    async fn first(&mut self) {
        for n in 0..9 {
            let mut many = records(&[1000 + 10 * n, 1005 + 10 * n], 60);
            let producer = 7 + n % 2;
            many.patch_header(|header| {
                (header.producer_id, header.producer_epoch) = (producer, 1);
                header.base_sequence = (n / 2 * 2) as i32;
            });
            self.append("many", many, if n < 4 { 2 } else { 3 }).await;
        }
        for n in 0..2 {
            self.append("large", records(&[5000 + n], 9000), 3).await;
        }
        for (n, base) in [3, 9, 10, 21, 22].into_iter().enumerate() {
            let mut gaps = records(&[2000 + n as i64], 100);
            gaps.header.base_offset = base;
            self.append("gaps", gaps, 4).await;
        }
        for n in 0..5 {
            self.append("cut", records(&[3000 + n, 3000 + n], 250), 1).await;
        }
    }

    /// What the journal alone holds, where the store is killed.
    async fn second(&mut self) {
        for n in 9..12 {
            self.append("many", records(&[1000 + 10 * n], 60), 3).await;
        }
        self.append("few", records(&[4000, 4001], 30), 5).await;
        self.append("large", records(&[5009], 9000), 6).await;
        self.append("few", records(&[4002], 30), 5).await;
    }
}

/// Builds the image.
pub(in crate::tests) fn image(left: Left) -> Image {
    let world = world(5);
    let disk = world.disk();
    let logs = world.block_on(async move {
        let (store, _) = open(disk.clone(), tiny()).await;
        let mut writer = Writer { store: store.clone(), logs: BTreeMap::new() };
        for name in ["many", "large", "gaps", "cut", "few", "none"] {
            let config = LogConfig { segment_bytes: 900, index_interval_bytes: 512, ..log_config() };
            let config = LogConfig { segment_bytes: if name == "large" { 64 << 10 } else { 900 }, ..config };
            store.create_log(name, config).await.unwrap();
            writer.logs.insert(name.to_owned(), LogTruth::default());
        }
        writer.first().await;
        store.log("cut").unwrap().delete_records(5).await.unwrap();
        writer.logs.get_mut("cut").unwrap().start = 5;
        store.checkpoint().await.unwrap();
        crate::indexes::write_files(&store.log("many").unwrap().store).await;
        writer.second().await;
        if left == Left::Closed {
            store.close().await.unwrap();
        } else if left == Left::Killed {
            for _ in 0..3 {
                store.tick(2000).await;
                disk.sleep(Duration::from_secs(1)).await;
            }
            // The last frame may be on its way still.
            for _ in 0..20 {
                disk.sleep(Duration::from_millis(50)).await;
            }
        }
        writer.logs
    });
    // The journal has what was acknowledged; a write behind may be under way.
    let world = world.crash(Crash::Kill);
    let mut image = Image { files: world.files(), logs };
    tell(&mut image);
    image
}

/// Takes from a start what is not told by the appends themselves, after that was found right.
fn tell(image: &mut Image) {
    let world = SimWorld::with_files(1, &image.files);
    let disk = world.disk();
    let mut logs = std::mem::take(&mut image.logs);
    image.logs = world.block_on(async move {
        let (store, report) = open(disk, tiny()).await;
        assert_eq!(report.offline, []);
        for (name, truth) in &mut logs {
            let log = store.log(name).unwrap();
            let batches: Vec<Batch> = read_all(&log).await;
            let told = truth.batches.values().filter(|batch| batch.header.next_offset() > truth.start);
            assert_eq!(batches, told.cloned().collect::<Vec<_>>(), "{name}");
            truth.producers = log.producers();
            let search = async |search: crate::BatchSearch| search.run(1 << 20);
            let stamps: Vec<i64> =
                truth.batches.values().map(|batch| batch.header.max_timestamp).chain([i64::MAX]).collect();
            for time in stamps {
                truth.times.insert(time, log.offset_for_time(time, search).await.unwrap());
            }
            truth.newest = log.max_timestamp(search).await.unwrap();
        }
        logs
    });
}
