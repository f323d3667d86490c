//! Property test: a log, whatever is done to it and however often it is reopened, behaves as its naive twin.

use std::path::Path;
use std::rc::Rc;

use penstock_format::{Batch, BatchBuilder, DECOMPRESSED_BYTES_MAX, NewRecord, Records};
use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{Crash, SimDisk, SimWorld};
use penstock_storage::{
    AppendContext, BatchSearch, Log, LogConfig, Origin, ReadError, Store, StoreConfig, TimestampOffset,
};
use proptest::prelude::*;

use crate::crash;
use crate::oracle::{Unjudged, check_content};
use crate::traffic::{append, now_ms};
use crate::twin::{Change, State, Twin, Written};

const SEGMENT_BYTES: u64 = 16 << 10;

/// One thing done to the log. Fractions are of 65,536.
#[derive(Debug, Clone)]
enum Action {
    /// Batches, each a list of value sizes; timestamps stray from the clock by so many milliseconds.
    Append {
        batches: Vec<Vec<u16>>,
        stray_ms: i16,
    },
    AppendIdempotent {
        producer: u8,
        sizes: Vec<u16>,
    },
    RepeatLast {
        producer: u8,
    },
    DeleteRecords {
        fraction: u16,
    },
    Truncate {
        fraction: u16,
    },
    NextEpoch,
    Wait {
        ms: u32,
    },
    Retain {
        bytes: Option<u16>,
        ms: Option<u16>,
    },
    Reopen(Ending),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Close,
    Kill,
    PowerLoss,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let sizes = || prop::collection::vec(prop_oneof![4 => 0..200u16, 1 => 0..9_000u16], 1..4);
    let action = prop_oneof![
        12 => (prop::collection::vec(sizes(), 1..4), -50..50i16)
            .prop_map(|(batches, stray_ms)| Action::Append { batches, stray_ms }),
        5 => (0..3u8, sizes()).prop_map(|(producer, sizes)| Action::AppendIdempotent { producer, sizes }),
        2 => (0..3u8).prop_map(|producer| Action::RepeatLast { producer }),
        1 => any::<u16>().prop_map(|fraction| Action::DeleteRecords { fraction }),
        1 => any::<u16>().prop_map(|fraction| Action::Truncate { fraction }),
        1 => Just(Action::NextEpoch),
        2 => (0..2_000u32).prop_map(|ms| Action::Wait { ms }),
        1 => (any::<Option<u16>>(), any::<Option<u16>>()).prop_map(|(bytes, ms)| Action::Retain { bytes, ms }),
        3 => prop_oneof![Just(Ending::Close), Just(Ending::Kill), Just(Ending::PowerLoss)].prop_map(Action::Reopen),
    ];
    prop::collection::vec(action, 1..40)
}

struct Model {
    world: SimWorld,
    store: Store<SimDisk>,
    log: Log<SimDisk>,
    config: LogConfig,
    twin: Twin,
    epoch: i32,
}

type Outcome = Result<(), String>;

impl Model {
    fn state(&self) -> &State {
        self.twin.current().unwrap_or_else(|| panic!("the log exists"))
    }

    async fn open(world: &SimWorld, config: &LogConfig) -> Result<(Store<SimDisk>, Log<SimDisk>), String> {
        let profile =
            crash::Profile { direct_bytes_min: 4096, segment_bytes: SEGMENT_BYTES, ..crash::unlimited() };
        let store_config = StoreConfig {
            segment_bytes_max: SEGMENT_BYTES,
            producers_per_log_max: 2,
            ..crash::plan(&profile).store
        };
        let opened = Store::open(world.disk(), Path::new("/data"), store_config, now_ms(world)).await;
        let (store, report) = opened.map_err(|error| error.to_string())?;
        if !report.offline.is_empty() {
            return Err(format!("{report:?}"));
        }
        let log = match store.log("model") {
            Some(log) => log,
            None => store.create_log("model", config.clone()).await.map_err(|error| error.to_string())?,
        };
        log.set_config(config.clone());
        Ok((store, log))
    }

    async fn act(&mut self, action: &Action) -> Outcome {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let at = |fraction: u16| start + ((end - start + 1) * i64::from(fraction)) / 65_536;
        match action {
            Action::Append { batches, stray_ms } => {
                let stray = |sizes: &Vec<u16>| self.batch(sizes, None, i64::from(*stray_ms));
                let batches = batches.iter().map(stray).collect();
                self.append(batches).await
            }
            Action::AppendIdempotent { producer, sizes } => {
                let last = self.state().producers().remove(&i64::from(*producer));
                let sequence = last.map_or(0, |last| last.sent.header.last_sequence() + 1);
                let batch = self.batch(sizes, Some((i64::from(*producer), sequence)), 0);
                self.append(vec![batch]).await
            }
            Action::RepeatLast { producer } => self.repeat(i64::from(*producer)).await,
            Action::DeleteRecords { fraction } => {
                let offset = at(*fraction);
                self.twin.ask(Change::DeleteRecords(offset));
                let found = self.log.delete_records(offset).await.map_err(|error| error.to_string())?;
                equal("start after deletion", found, offset)
            }
            Action::Truncate { fraction } => {
                let offset = at(*fraction);
                self.twin.ask(Change::Truncate(offset));
                self.epoch += 1;
                let found = self.log.truncate(offset).await.map_err(|error| error.to_string())?;
                equal("end after truncation", found, self.state().end)
            }
            Action::NextEpoch => {
                self.epoch += 1;
                Ok(())
            }
            Action::Wait { ms } => {
                self.world.disk().sleep(std::time::Duration::from_millis(u64::from(*ms))).await;
                self.store.tick(now_ms(&self.world)).await;
                Ok(())
            }
            Action::Retain { bytes, ms } => self.retain(*bytes, *ms).await,
            Action::Reopen(_) => unreachable!("done outside, where the world can end"),
        }
    }

    fn batch(&self, sizes: &[u16], producer: Option<(i64, i32)>, stray_ms: i64) -> Batch {
        let mut builder = BatchBuilder::new();
        if let Some((id, sequence)) = producer {
            builder = builder.producer(id, 0, sequence);
        }
        for (index, size) in sizes.iter().enumerate() {
            let value = vec![*size as u8; usize::from(*size)];
            let timestamp = now_ms(&self.world) + stray_ms * index as i64;
            builder.append(&NewRecord { timestamp, value: Some(&value), ..NewRecord::default() }).unwrap();
        }
        builder.finish().unwrap()
    }

    fn context(&self) -> AppendContext {
        AppendContext { leader_epoch: self.epoch, now_ms: now_ms(&self.world), origin: Origin::Client }
    }

    async fn append(&mut self, batches: Vec<Batch>) -> Outcome {
        let mut next = self.state().end;
        let base = next;
        let mut written = Vec::new();
        for batch in &batches {
            written.push(Rc::new(Written::new(batch, next, self.epoch)));
            next += i64::from(batch.header.record_count);
        }
        let room = self.store.reserve(batches.iter().map(Batch::len).sum()).await;
        let appended =
            append(&self.log, &batches, self.context()).await.map_err(|error| error.to_string())?;
        drop(room);
        self.twin.ask(Change::Append(written));
        equal("appended", (appended.base_offset, appended.last_offset), (base, next - 1))?;
        self.log.durable(appended.ticket).await.map_err(|error| error.to_string())
    }

    async fn repeat(&mut self, producer: i64) -> Outcome {
        let Some(last) = self.state().producers().remove(&producer) else { return Ok(()) };
        if last.base_offset < self.log.log_start_offset() {
            return Ok(());
        }
        let appended = append(&self.log, std::slice::from_ref(&last.sent), self.context()).await;
        let appended = appended.map_err(|error| error.to_string())?;
        equal("repeated", (appended.base_offset, appended.duplicate), (last.base_offset, true))
    }

    /// Sets limits, lets the store enforce them, and takes them away again.
    async fn retain(&mut self, bytes: Option<u16>, ms: Option<u16>) -> Outcome {
        let (bytes, ms) = (bytes.map_or(-1, i64::from), ms.map_or(-1, |ms| i64::from(ms) / 16));
        let limits = LogConfig { retention_bytes: bytes, retention_ms: ms, ..self.config.clone() };
        self.log.set_config(limits);
        let now = now_ms(&self.world);
        self.store.tick(now).await;
        self.log.set_config(self.config.clone());
        let (old, new) = (self.state().start, self.log.log_start_offset());
        let len = |batch: &Rc<Written>| batch.bytes.len() as u64;
        let kept: u64 = self.state().readable(new).map(len).sum();
        let is_expired = |batch: &Rc<Written>| ms >= 0 && now - batch.max_timestamp > ms;
        let is_gone = |batch: &&Rc<Written>| batch.last_offset < new;
        let any_unexpired = self.state().readable(old).filter(is_gone).any(|batch| !is_expired(batch));
        if any_unexpired && (bytes < 0 || kept < bytes as u64) {
            return Err(format!(
                "retention of {bytes} bytes, {ms} ms deleted up to {new}, keeping {kept} bytes"
            ));
        }
        let largest = self.state().readable(new).map(len).max().unwrap_or(0);
        if bytes >= 0 && kept >= bytes as u64 + SEGMENT_BYTES + largest {
            return Err(format!("retention of {bytes} bytes kept {kept}"));
        }
        // All, also deleted ones: deletion by time is by segment, and stops at the first that is too young.
        if new < self.state().end && self.state().batches.iter().all(is_expired) {
            return Err(format!("retention of {ms} ms kept only expired batches from {new}"));
        }
        self.twin.ask(Change::DeleteRecords(new));
        Ok(())
    }

    async fn check(&self) -> Outcome {
        let (state, log) = (self.state(), &self.log);
        equal("start", log.log_start_offset(), state.start)?;
        equal(
            "end",
            (log.log_end_offset(), log.durable_offset(), log.written_offset()),
            (state.end, state.end, state.end),
        )?;
        let middle = state.start + (state.end - state.start) / 2;
        for from in [state.start, middle] {
            match check_content(log, state, from..state.end).await {
                Ok(()) => {}
                Err(Unjudged::Broken(violation)) => return Err(violation.0),
                Err(Unjudged::DiskFailed) => return Err("the disk failed".into()),
            }
        }
        for outside in [state.start - 1, state.end + 1] {
            let expected = Err(ReadError::OutOfRange { start: state.start, end: state.end });
            equal("read outside", log.read(outside, 1000, i64::MAX, true).await, expected)?;
        }
        if state.start == 0 {
            let bytes: u64 = state.batches.iter().map(|batch| batch.bytes.len() as u64).sum();
            equal("size", log.size_bytes(), bytes)?;
        }
        self.check_epochs()?;
        self.check_producers().await?;
        self.check_times().await
    }

    fn check_epochs(&self) -> Outcome {
        let readable: Vec<_> = self.state().readable(self.state().start).collect();
        let Some(last) = readable.last() else { return Ok(()) };
        equal("latest epoch", self.log.latest_epoch(), Some(last.epoch))?;
        for epoch in readable[0].epoch..=last.epoch {
            let own =
                readable.iter().rev().find(|batch| batch.epoch <= epoch).map_or(-1, |batch| batch.epoch);
            let next = readable.iter().find(|batch| batch.epoch > epoch);
            let end = next.map_or(self.state().end, |batch| batch.base_offset);
            equal("epoch end", self.log.epoch_end_offset(epoch), Some((own, end)))?;
        }
        equal("epoch of the last record", self.log.epoch_at(self.state().end - 1), Some(last.epoch))
    }

    async fn check_producers(&self) -> Outcome {
        for (id, last) in self.state().producers() {
            let admitted = self.log.admit_producers([id], self.context()).await;
            admitted.map_err(|error| error.to_string())?;
            let known = self.log.producers();
            let found = known.iter().find(|producer| producer.producer_id == id);
            if last.base_offset >= self.state().start {
                let sequence = found.map(|producer| producer.last_sequence);
                equal("producer's last sequence", sequence, Some(last.sent.header.last_sequence()))?;
            }
        }
        Ok(())
    }

    async fn check_times(&self) -> Outcome {
        let (start, mut records) = (self.state().start, Vec::new());
        for batch in self.state().readable(start) {
            let opened = Records::open(&batch.sent, 1 << 20).map_err(|error| error.to_string())?;
            for (index, record) in opened.iter().enumerate() {
                let timestamp = record.map_err(|error| error.to_string())?.timestamp;
                let offset = batch.base_offset + index as i64;
                records.push(TimestampOffset { offset, timestamp, leader_epoch: batch.epoch });
            }
        }
        records.retain(|record| record.offset >= start);
        let largest = records.iter().map(|record| record.timestamp).max();
        let newest = records.iter().find(|record| Some(record.timestamp) == largest).copied();
        let opened = std::cell::Cell::new(0);
        let open = async |search: BatchSearch| {
            opened.set(opened.get() + 1);
            search.run(DECOMPRESSED_BYTES_MAX)
        };
        equal("largest timestamp", self.log.max_timestamp(open).await, Ok(newest))?;
        equal("batches opened for it", opened.get() <= 2, true)?;
        let Some(largest) = largest else { return Ok(()) };
        let sample = records.iter().step_by(records.len() / 3 + 1).map(|record| record.timestamp);
        for timestamp in sample.chain([largest, largest + 1, 0]) {
            let first = records.iter().find(|record| record.timestamp >= timestamp).copied();
            let what = format!("first record from {timestamp} on");
            equal(&what, self.log.offset_for_time(timestamp, open).await, Ok(first))?;
        }
        Ok(())
    }

    /// What a crash may forget, although nothing was in flight: where retention had moved the start.
    fn allow_older_start(&mut self, deleted: i64) {
        let start = self.log.log_start_offset();
        if (deleted..self.state().start).contains(&start) {
            let state = State { start, ..self.state().clone() };
            self.twin.settle(Some(state));
        }
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}

fn run(seed: u64, actions: &[Action]) -> Outcome {
    let mut world = SimWorld::new(seed);
    let (mut twin, mut epoch, mut deleted, mut ending) = (Twin::default(), 0, 0, Ending::Close);
    twin.ask(Change::Create);
    for life in actions.split_inclusive(|action| matches!(action, Action::Reopen(_))) {
        let (current, actions) = (world.clone(), life.to_vec());
        let done = world.block_on(async move {
            let config =
                LogConfig { segment_bytes: SEGMENT_BYTES, index_interval_bytes: 512, ..LogConfig::default() };
            let (store, log) = Model::open(&current, &config).await?;
            let mut model = Model { world: current, store, log, config, twin, epoch };
            if ending != Ending::Close {
                model.allow_older_start(deleted);
            }
            model.check().await.map_err(|what| format!("after opening: {what}"))?;
            for action in &actions {
                if let Action::Reopen(how) = action {
                    ending = *how;
                    break;
                }
                model.act(action).await.map_err(|what| format!("{action:?}: {what}"))?;
                model.check().await.map_err(|what| format!("after {action:?}: {what}"))?;
                if let Action::DeleteRecords { .. } = action {
                    deleted = deleted.max(model.state().start);
                }
            }
            if ending == Ending::Close {
                model.store.close().await.map_err(|error| format!("closing: {error}"))?;
            }
            Ok::<_, String>((model.twin, model.epoch, deleted, ending))
        })?;
        (twin, epoch, deleted, ending) = done;
        world = world.crash(if ending == Ending::Kill { Crash::Kill } else { Crash::PowerLoss });
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_log_behaves_as_its_twin(seed in any::<u64>(), actions in actions()) {
        run(seed, &actions).map_err(TestCaseError::fail)?;
    }
}
