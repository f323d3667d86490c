//! One life of a store: open it, check it, then several clients that each own a log append, read, truncate, delete
//! and remove at random, noting what was asked for and what was acknowledged.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use oorandom::Rand64;
use penstock_format::{Batch, BatchBuilder, NewRecord};
use penstock_storage::disk::Disk;
use penstock_storage::disk::sim::{SimDisk, SimWorld};
use penstock_storage::{AppendContext, AppendError, Appended, Log, Origin, Store, StoreError};

use crate::oracle::{OracleRef, Unjudged, check_content, check_store};
use crate::plan::Plan;
use crate::twin::{Change, Written};

/// Start of time in these tests, in milliseconds.
pub(crate) const EPOCH_MS: i64 = 1_700_000_000_000;
/// Virtual time after which something that should have ended has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// Idempotent producers of each log, more than there is room for in memory.
const PRODUCERS: u64 = 6;

/// How a life ended that was not cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The store was closed: the next opening replays nothing.
    Closed,
    /// All was acknowledged; the store is still open.
    Open,
    /// The disk failed, as planned.
    Failed,
}

#[derive(Clone)]
struct Life {
    plan: Rc<Plan>,
    world: SimWorld,
    store: Store<SimDisk>,
    oracle: OracleRef,
    /// Acknowledgements awaited.
    awaited: Rc<Cell<u64>>,
    /// Clients at work.
    clients: Rc<Cell<u64>>,
    ticking: Rc<Cell<bool>>,
}

pub(crate) fn now_ms(world: &SimWorld) -> i64 {
    EPOCH_MS + world.elapsed().as_millis() as i64
}

/// Lives one life. `closed` says that the life before ended by closing the store.
pub(crate) async fn live(
    world: SimWorld,
    oracle: OracleRef,
    plan: Rc<Plan>,
    closed: bool,
) -> Result<Ending, Unjudged> {
    let broken = |what: String| Unjudged::Broken(crate::oracle::Violation(what));
    let faulty = oracle.borrow().faulty;
    let dir = Path::new("/data/shard-0");
    let opened = Store::open(world.disk(), dir, plan.store.clone(), now_ms(&world)).await;
    let (store, report) = match opened {
        Ok(opened) => opened,
        Err(_) if faulty || oracle.borrow().full => return Ok(Ending::Failed),
        Err(error) => {
            let oracle = oracle.borrow();
            let stories: Vec<_> = oracle.logs.iter().map(|(name, log)| (name, log.twin.story())).collect();
            return Err(broken(format!("the store does not open: {error}; {stories:?}")));
        }
    };
    if closed && (report.frames_replayed > 0 || report.torn_tail) {
        return Err(broken(format!("replayed after a clean close: {report:?}")));
    }
    let replayed_max = plan.replayed_bytes_max();
    if report.bytes_replayed > replayed_max {
        return Err(broken(format!(
            "{} bytes replayed, at most {replayed_max} are due",
            report.bytes_replayed
        )));
    }
    if !report.offline.is_empty() {
        return if faulty { Ok(Ending::Failed) } else { Err(broken(format!("offline: {report:?}"))) };
    }
    check_store(&store, &oracle).await?;
    let life = Life {
        plan,
        world,
        store,
        oracle,
        awaited: Rc::default(),
        clients: Rc::default(),
        ticking: Rc::new(Cell::new(true)),
    };
    life.run().await
}

impl Life {
    async fn run(self) -> Result<Ending, Unjudged> {
        let disk = self.world.disk();
        for number in 0..self.plan.logs {
            let random = Rand64::new(u128::from(self.world.random(u64::MAX)));
            let client = Client { life: self.clone(), name: format!("log-{number}"), random, epoch: 0 };
            self.clients.set(self.clients.get() + 1);
            disk.spawn("test", async move {
                let (clients, oracle) = (client.life.clients.clone(), client.life.oracle.clone());
                let name = client.name.clone();
                if let Err(Stop::Broken(what)) = client.run().await {
                    oracle.borrow_mut().broken(format!("log {name}: {what}"));
                }
                clients.set(clients.get() - 1);
            });
        }
        let (ticker, stopped) = (self.clone(), Rc::new(Cell::new(false)));
        let stop = stopped.clone();
        disk.spawn("test", async move {
            while ticker.ticking.get() {
                ticker.world.disk().sleep(Duration::from_millis(20)).await;
                ticker.store.tick(now_ms(&ticker.world)).await;
            }
            stop.set(true);
        });
        while self.clients.get() > 0 || self.awaited.get() > 0 {
            disk.sleep(Duration::from_millis(5)).await;
        }
        self.ticking.set(false);
        while !stopped.get() {
            disk.sleep(Duration::from_millis(5)).await;
        }
        let others_offline = {
            let oracle = self.oracle.borrow();
            let alone = oracle.alone.as_ref();
            // A log that fails while a truncation of it is on its way takes all with it.
            let is_other = |name: &String| alone.is_some_and(|alone| alone != name);
            let mut others = oracle.logs.iter().filter(|(name, _)| is_other(name));
            let offline =
                others.find_map(|(name, known)| Some((name.clone(), known.log.as_ref()?.offline()?)));
            offline.filter(|(_, offline)| !offline.reason.contains("being truncated"))
        };
        if let Some((name, offline)) = others_offline {
            return Err(Unjudged::Broken(crate::oracle::Violation(format!(
                "log {name} went offline: {offline}"
            ))));
        }
        if !self.plan.close {
            return Ok(Ending::Open);
        }
        match self.store.close().await {
            Ok(()) => Ok(Ending::Closed),
            Err(_) if self.oracle.borrow().faulty => Ok(Ending::Failed),
            Err(error) => Err(Unjudged::Broken(crate::oracle::Violation(format!("closing: {error}")))),
        }
    }
}

/// Appends, and waits for producers that are on disk.
pub(crate) async fn append(
    log: &Log<SimDisk>,
    batches: &[Batch],
    context: AppendContext,
) -> Result<Appended, AppendError> {
    loop {
        match log.append(batches.to_vec(), context) {
            Err(AppendError::ProducerAway(_)) => {
                let ids = batches.iter().map(|batch| batch.header.producer_id);
                log.admit_producers(ids, context).await?;
            }
            appended => return appended,
        }
    }
}

/// Why a client stops before its time.
enum Stop {
    Broken(String),
    /// The disk failed, as planned.
    DiskFailed,
}

/// The owner of one log.
struct Client {
    life: Life,
    name: String,
    random: Rand64,
    epoch: i32,
}

impl Client {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.rand_range(0..bound.max(1))
    }

    fn broken(&self, what: impl Into<String>) -> Stop {
        Stop::Broken(what.into())
    }

    /// An error is a broken promise unless the disk has faults.
    fn failed(&self, what: &str, error: impl std::fmt::Display) -> Stop {
        let oracle = self.life.oracle.borrow();
        let mine = oracle.alone.as_ref().is_none_or(|alone| *alone == self.name);
        drop(oracle);
        let error = error.to_string();
        if self.life.oracle.borrow().faulty && (mine || error.contains("being truncated")) {
            return Stop::DiskFailed;
        }
        self.broken(format!("{what}: {error}"))
    }

    /// Whether an append may be refused because the disk is full.
    fn may_be_full(&self) -> bool {
        let oracle = self.life.oracle.borrow();
        oracle.faulty || oracle.full
    }

    /// Waits a little before the next step.
    async fn pause(&self) -> Result<(), Stop> {
        self.life.world.disk().sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    fn log(&self) -> Log<SimDisk> {
        let mut oracle = self.life.oracle.borrow_mut();
        oracle.known(&self.name).log.clone().unwrap_or_else(|| panic!("{} has no handle", self.name))
    }

    fn ask(&self, change: Change) -> usize {
        self.life.oracle.borrow_mut().known(&self.name).twin.ask(change)
    }

    fn acknowledge(&self, number: usize) {
        self.life.oracle.borrow_mut().known(&self.name).twin.acknowledge(number);
    }

    fn current(&self) -> crate::twin::State {
        let mut oracle = self.life.oracle.borrow_mut();
        oracle.known(&self.name).twin.current().cloned().unwrap_or_default()
    }

    async fn run(mut self) -> Result<(), Stop> {
        if self.life.oracle.borrow_mut().known(&self.name).log.is_none() {
            self.create().await?;
        }
        self.log().set_config(self.life.plan.log.clone());
        self.epoch = self.log().latest_epoch().unwrap_or(0) + 1;
        if self.below(2) == 0 {
            for producer in self.current().producers().into_keys() {
                self.repeat(producer).await?;
            }
        }
        for _ in 0..self.below(self.life.plan.operations + 1) {
            self.step().await?;
            self.observe();
            if self.life.plan.pause_ms_max > 0 {
                let pause = Duration::from_millis(self.below(self.life.plan.pause_ms_max));
                self.life.world.disk().sleep(pause).await;
            }
        }
        Ok(())
    }

    /// Readers may have seen what the log calls stable.
    fn observe(&self) {
        let log = self.log();
        if self.life.plan.log.is_durable() {
            let mut oracle = self.life.oracle.borrow_mut();
            oracle.known(&self.name).twin.observe_durable(log.written_offset());
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        match self.below(100) {
            0..60 => self.append().await,
            60..68 => {
                let producer = self.below(PRODUCERS) as i64;
                self.repeat(producer).await
            }
            68..80 => self.read().await,
            80..83 => self.delete_records().await,
            83..86 => self.truncate().await,
            86..87 => self.recreate().await,
            87 => {
                self.epoch += 1;
                Ok(())
            }
            88..92 => {
                while self.life.awaited.get() > 0 {
                    self.life.world.disk().sleep(Duration::from_millis(1)).await;
                }
                Ok(())
            }
            _ => {
                let pause = Duration::from_micros(self.below(20_000));
                self.life.world.disk().sleep(pause).await;
                Ok(())
            }
        }
    }

    async fn create(&mut self) -> Result<(), Stop> {
        let number = self.ask(Change::Create);
        let created = self.life.store.create_log(&self.name, self.life.plan.log.clone()).await;
        let log = created.map_err(|error| self.failed("create", error))?;
        self.acknowledge(number);
        self.life.oracle.borrow_mut().known(&self.name).log = Some(log);
        Ok(())
    }

    async fn recreate(&mut self) -> Result<(), Stop> {
        let number = self.ask(Change::Remove);
        let removed = self.life.store.remove_log(&self.name).await;
        removed.map_err(|error| self.failed("remove", error))?;
        self.acknowledge(number);
        {
            let mut oracle = self.life.oracle.borrow_mut();
            let known = oracle.known(&self.name);
            known.log = None;
            known.start_max = 0;
        }
        self.create().await
    }

    async fn append(&mut self) -> Result<(), Stop> {
        let large_bytes_max = self.life.plan.large_bytes_max;
        if large_bytes_max > 0 && self.below(12) == 0 {
            return self.append_large(large_bytes_max).await;
        }
        let batches = match self.below(4) {
            0 => vec![self.idempotent_batch()],
            1 => (0..1 + self.below(3)).map(|_| self.batch(None)).collect(),
            _ => vec![self.batch(None)],
        };
        self.send(batches).await
    }

    /// The next batch of one of the log's producers.
    fn idempotent_batch(&mut self) -> Batch {
        let producer = self.below(PRODUCERS) as i64;
        let last = self.current().producers().remove(&producer);
        let next = match last {
            Some(last) if self.below(20) == 0 => (producer, last.sent.header.producer_epoch + 1, 0),
            Some(last) => {
                let sequence = last.sent.header.last_sequence().wrapping_add(1);
                (producer, last.sent.header.producer_epoch, sequence)
            }
            None => (producer, 0, 0),
        };
        self.batch(Some(next))
    }

    fn batch(&mut self, producer: Option<(i64, i16, i32)>) -> Batch {
        let mut builder = BatchBuilder::new();
        if let Some((id, epoch, sequence)) = producer {
            builder = builder.producer(id, epoch, sequence);
        }
        let small = self.below(3) > 0;
        let bytes_max = if small { 200 } else { self.life.plan.value_bytes_max };
        for _ in 0..1 + self.below(3) {
            let value = vec![self.random.rand_u64() as u8; self.below(bytes_max) as usize];
            let timestamp = now_ms(&self.life.world);
            let record = NewRecord { timestamp, value: Some(&value), ..NewRecord::default() };
            builder.append(&record).unwrap();
        }
        builder.finish().unwrap()
    }

    fn context(&self) -> AppendContext {
        let now_ms = now_ms(&self.life.world);
        AppendContext { leader_epoch: self.epoch, now_ms, origin: Origin::Client }
    }

    /// A batch that waits for its segment's file.
    async fn append_large(&mut self, bytes_max: u64) -> Result<(), Stop> {
        let bytes_min = self.life.plan.store.append_bytes_max() as u64;
        let len = bytes_min + self.below(bytes_max - bytes_min);
        let value = vec![self.random.rand_u64() as u8; len as usize];
        let timestamp = now_ms(&self.life.world);
        let mut builder = BatchBuilder::new();
        builder.append(&NewRecord { timestamp, value: Some(&value), ..NewRecord::default() }).unwrap();
        let batch = builder.finish().unwrap();
        let room = match self.life.store.reserve(batch.len()).await {
            Err(StoreError::DiskFull) if self.may_be_full() => return self.pause().await,
            room => room.map_err(|error| self.failed("reserve", error))?,
        };
        let (log, context) = (self.log(), self.context());
        let next = log.log_end_offset();
        let appended = match log.append_large(batch.clone(), context).await {
            Err(AppendError::DiskFull) if self.may_be_full() => return self.pause().await,
            appended => appended.map_err(|error| self.failed("append of a large batch", error))?,
        };
        drop(room);
        self.appended(&log, &[batch], (next, context.leader_epoch), appended)
    }

    async fn send(&mut self, batches: Vec<Batch>) -> Result<(), Stop> {
        let (mut bytes, bytes_max) = (0, self.life.plan.store.append_bytes_max());
        let fits = |batch: &Batch| {
            bytes += batch.len();
            bytes <= bytes_max
        };
        let batches: Vec<Batch> = batches.into_iter().take_while(fits).collect();
        if batches.is_empty() {
            return Ok(());
        }
        let room = match self.life.store.reserve(bytes.min(bytes_max)).await {
            Err(StoreError::DiskFull) if self.may_be_full() => return self.pause().await,
            room => room.map_err(|error| self.failed("reserve", error))?,
        };
        let (log, context) = (self.log(), self.context());
        let next = log.log_end_offset();
        let appended = match append(&log, &batches, context).await {
            Err(AppendError::DiskFull) if self.may_be_full() => return self.pause().await,
            Err(AppendError::Producer(_)) if self.is_forgotten(batches[0].header.producer_id) => {
                return Ok(());
            }
            appended => appended.map_err(|error| self.failed("append", error))?,
        };
        drop(room);
        self.appended(&log, &batches, (next, context.leader_epoch), appended)
    }

    /// Checks what an append at `next` answered, and notes it.
    fn appended(
        &mut self,
        log: &Log<SimDisk>,
        batches: &[Batch],
        (mut next, epoch): (i64, i32),
        appended: Appended,
    ) -> Result<(), Stop> {
        let mut written = Vec::new();
        for batch in batches {
            written.push(Rc::new(Written::new(batch, next, epoch)));
            next += batch.header.record_count as i64;
        }
        let number = self.ask(Change::Append(written.clone()));
        let expected = (written[0].base_offset, next - 1, false);
        if (appended.base_offset, appended.last_offset, appended.duplicate) != expected {
            return Err(self.broken(format!("appended {expected:?} as {appended:?}")));
        }
        self.await_durable(log.clone(), appended.ticket, move |client| client.acknowledge(number));
        Ok(())
    }

    /// Whether all that the log holds of a producer was deleted: what is remembered of it then depends on segments.
    fn is_forgotten(&self, producer: i64) -> bool {
        let start = self.log().log_start_offset();
        self.current().producers().get(&producer).is_none_or(|last| last.base_offset < start)
    }

    /// Waits beside the client until the commit is stable, then notes it.
    fn await_durable(
        &self,
        log: Log<SimDisk>,
        ticket: penstock_storage::Ticket,
        note: impl FnOnce(&Client) + 'static,
    ) {
        let client =
            Client { life: self.life.clone(), name: self.name.clone(), random: self.random, epoch: 0 };
        let awaited = self.life.awaited.clone();
        awaited.set(awaited.get() + 1);
        let generation = self.generation();
        self.life.world.disk().spawn("test", async move {
            let durable = log.durable(ticket).await;
            // A log that was removed meanwhile owes nothing any more.
            if client.generation() == generation {
                match durable {
                    Ok(()) => note(&client),
                    Err(error) => {
                        if let Stop::Broken(what) = client.failed("durable", error) {
                            client.life.oracle.borrow_mut().broken(what);
                        }
                    }
                }
            }
            awaited.set(awaited.get() - 1);
        });
    }

    /// Number of times this log was created or removed.
    fn generation(&self) -> u64 {
        self.life.oracle.borrow_mut().known(&self.name).twin.generation()
    }

    /// Sends a producer's newest batch again.
    async fn repeat(&mut self, producer: i64) -> Result<(), Stop> {
        let log = self.log();
        let Some(last) = self.current().producers().remove(&producer) else { return Ok(()) };
        if last.base_offset < log.log_start_offset() {
            return Ok(());
        }
        let next = log.log_end_offset();
        let context = self.context();
        let appended = match append(&log, std::slice::from_ref(&last.sent), context).await {
            Err(AppendError::DiskFull) if self.may_be_full() => return self.pause().await,
            appended => appended,
        };
        let appended = appended.map_err(|error| self.failed("repeat", error))?;
        if !appended.duplicate && self.life.oracle.borrow().forgets {
            return self.appended(
                &log,
                std::slice::from_ref(&last.sent),
                (next, context.leader_epoch),
                appended,
            );
        }
        if appended.duplicate && appended.base_offset < last.base_offset && self.life.oracle.borrow().forgets
        {
            return Ok(()); // It was forgotten, and then known again as it was before.
        }
        let found = (appended.base_offset, appended.last_offset, appended.duplicate);
        if found != (last.base_offset, last.last_offset, true) {
            let (base, sequence) = (last.base_offset, last.sent.header.base_sequence);
            let what = format!("producer {producer} repeated {sequence} at {base}, got {appended:?}");
            return Err(self.broken(what));
        }
        let end = last.last_offset + 1;
        self.await_durable(log, appended.ticket, move |client| {
            client.life.oracle.borrow_mut().known(&client.name).twin.observe_durable(end);
        });
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Stop> {
        let log = self.log();
        let (start, end) = (log.log_start_offset(), log.written_offset());
        let from = start + self.below((end - start).max(0) as u64 + 1) as i64;
        let state = self.current();
        match check_content(&log, &state, from..end).await {
            Ok(()) => Ok(()),
            Err(Unjudged::Broken(violation)) => Err(self.broken(violation.0)),
            Err(Unjudged::DiskFailed) => {
                let reason = log.offline().map(|offline| offline.to_string());
                Err(self.failed("read", reason.unwrap_or_else(|| "the disk failed".to_owned())))
            }
        }
    }

    async fn delete_records(&mut self) -> Result<(), Stop> {
        let log = self.log();
        let (start, end) = (log.log_start_offset(), log.written_offset());
        let offset = start + self.below((end - start) as u64 / 2 + 1) as i64;
        let number = self.ask(Change::DeleteRecords(offset));
        match log.delete_records(offset).await {
            Ok(new_start) if new_start >= offset => self.acknowledge(number),
            Ok(new_start) => return Err(self.broken(format!("deleted to {offset}, starts at {new_start}"))),
            Err(StoreError::OutOfRange { .. }) => self.refused(),
            Err(error) => return Err(self.failed("delete records", error)),
        }
        Ok(())
    }

    async fn truncate(&mut self) -> Result<(), Stop> {
        let log = self.log();
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let offset = end - self.below((end - start) as u64 / 3 + 1) as i64;
        if offset == end {
            // Nothing to do, and nothing promised of what is not stable yet.
            return match log.truncate(offset).await {
                Ok(found) if found == end => Ok(()),
                Ok(found) => Err(self.broken(format!("truncated to its end {end}, ends at {found}"))),
                Err(error) => Err(self.failed("truncate", error)),
            };
        }
        let number = self.ask(Change::Truncate(offset));
        match log.truncate(offset).await {
            Ok(end) if end == self.current().end => self.acknowledge(number),
            Ok(end) => {
                let expected = self.current().end;
                return Err(self.broken(format!("truncated to {offset}: ends at {end}, not {expected}")));
            }
            Err(StoreError::OutOfRange { .. }) => self.refused(),
            Err(error) => return Err(self.failed("truncate", error)),
        }
        self.epoch += 1;
        Ok(())
    }

    fn refused(&self) {
        self.life.oracle.borrow_mut().known(&self.name).twin.refused();
    }
}
