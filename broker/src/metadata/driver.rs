//! Carries out metadata commands, one after the other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::join_all;
use penstock_core::metadata::{
    Answer, Command, MetadataImage, MetadataMachine, MetadataRecord, ReplayError, encode_snapshot,
    resource_type,
};
use penstock_format::Batch;
use penstock_protocol::{ErrorCode, Uuid};

use super::log::{BatchRecordsError, MetadataLog, WriteError, batch};
use crate::runtime::pace::STRETCH_ENTRIES;
use crate::runtime::semaphore::Semaphore;
use crate::runtime::task;
use crate::shard::{Shard, ShardDisk, ShardReply, ShardRequest};

/// The machine with its log. Belongs to shard 0.
pub(crate) struct Driver {
    machine: RefCell<MetadataMachine>,
    log: MetadataLog<ShardDisk>,
    /// Commands wait here for their turn; bounded by the requests that wait for their answers.
    turn: Semaphore,
    /// The log failed: what is on disk is not known any more, so nothing is decided on it.
    failed: Cell<bool>,
    random: Arc<RandomIds>,
}

impl Driver {
    pub(crate) fn new(machine: MetadataMachine, log: MetadataLog<ShardDisk>) -> std::io::Result<Driver> {
        Ok(Driver {
            machine: RefCell::new(machine),
            log,
            turn: Semaphore::new(1),
            failed: Cell::new(false),
            random: Arc::new(RandomIds::open()?),
        })
    }

    /// The state now.
    pub(crate) fn image(&self) -> MetadataImage {
        self.machine.borrow().image().clone()
    }

    /// Exclusive end of what is stable in the log.
    pub(crate) fn log_end(&self) -> i64 {
        self.log.end()
    }

    /// Carries out one command. When it answers, the change is stable, published, and every shard has brought its
    /// partitions to it.
    pub(crate) async fn submit(&self, shard: &Rc<Shard>, command: Command) -> Result<Answer, ErrorCode> {
        let _turn = self.turn.acquire(1).await;
        if self.failed.get() {
            return Err(ErrorCode::KafkaStorageError);
        }
        // The turn keeps the state from changing while a snapshot of it is worked with elsewhere.
        let (machine, random) = (self.machine.borrow().clone(), self.random.clone());
        let (entries, now_ms) = (command.entries(machine.image()), task::now_ms());
        let decided = move || decide(&machine, &command, &random, now_ms);
        let Decided { records, answer, batch } = shard.desk.run_by_size(entries, decided).await;
        let Some(batch) = batch else { return Ok(answer) };
        self.write(batch).await?;
        let (image, changed) = self.replay(shard, records).await?;
        self.apply_everywhere(shard, &image, &changed).await;
        shard.shared.image.store(image);
        Ok(answer)
    }

    /// Takes a snapshot of the metadata if one is due. Commands go on meanwhile.
    pub(crate) async fn snapshot_if_due(&self, shard: &Rc<Shard>) {
        let (image, due) = {
            // Between two commands: a large one's records are written for a while before the state follows them.
            let _turn = self.turn.acquire(1).await;
            if self.failed.get() {
                return;
            }
            let Some(due) = self.log.due_snapshot(task::now_ms()) else { return };
            (self.image(), due)
        };
        let (offset, now_ms) = (due.offset, due.now_ms);
        let encoded = shard.workers.run(move || encode_snapshot(&image, offset, now_ms)).await;
        let encoded = encoded.map_err(Into::into).and_then(|encoded| encoded.map_err(Into::into));
        self.log.finish_snapshot(due, encoded).await;
    }

    async fn write(&self, batch: Result<Batch, BatchRecordsError>) -> Result<(), ErrorCode> {
        let written = match batch {
            Ok(batch) => self.log.write(batch, task::now_ms()).await,
            Err(error) => Err(error.into()),
        };
        written.map_err(|error| {
            tracing::error!("{error}");
            match error {
                WriteError::Unwritable(_) => ErrorCode::UnknownServerError,
                WriteError::Refused(_) => ErrorCode::KafkaStorageError,
                WriteError::Failed(_) | WriteError::NotReplayed(_) => {
                    self.failed.set(true);
                    ErrorCode::KafkaStorageError
                }
            }
        })
    }

    /// Brings the state to what was written; gives its image, and the topics that changed.
    async fn replay(
        &self,
        shard: &Rc<Shard>,
        records: Vec<MetadataRecord>,
    ) -> Result<(Arc<MetadataImage>, Arc<[Uuid]>), ErrorCode> {
        let replayed = if records.len() <= STRETCH_ENTRIES {
            replay(&mut self.machine.borrow_mut(), &records)
        } else {
            let mut machine = self.machine.borrow().clone();
            let work = move || (replay(&mut machine, &records), machine);
            let (replayed, machine) = shard.desk.run_by_size(usize::MAX, work).await;
            *self.machine.borrow_mut() = machine;
            replayed
        };
        let changed = replayed.map_err(|error| {
            // Decided and replayed by the same machine: a bug, and the log holds what the state does not.
            self.failed.set(true);
            tracing::error!("metadata record cannot be replayed: {error}");
            ErrorCode::UnknownServerError
        })?;
        Ok((Arc::new(self.image()), changed))
    }

    async fn apply_everywhere(&self, shard: &Rc<Shard>, image: &Arc<MetadataImage>, changed: &Arc<[Uuid]>) {
        if changed.is_empty() {
            return;
        }
        let applied = (0..shard.shared.shards)
            .map(|to| shard.ask(to, ShardRequest::Apply(image.clone(), changed.clone())));
        for (to, reply) in join_all(applied).await.into_iter().enumerate() {
            if let ShardReply::Apply(Err(error)) = reply {
                // The shard tries again by its clock; until then these partitions answer with an error.
                tracing::error!(shard = to, "partitions do not yet follow the metadata: {error}");
            }
        }
    }
}

/// What a command comes to.
struct Decided {
    records: Vec<MetadataRecord>,
    answer: Answer,
    /// The records as they are written; `None` if there are none.
    batch: Option<Result<Batch, BatchRecordsError>>,
}

fn decide(machine: &MetadataMachine, command: &Command, random: &RandomIds, now_ms: i64) -> Decided {
    let (records, answer) = machine.handle(command, &mut || random.draw());
    let batch = (!records.is_empty()).then(|| batch(&records, now_ms));
    Decided { records, answer, batch }
}

/// Gives the topics that changed.
fn replay(machine: &mut MetadataMachine, records: &[MetadataRecord]) -> Result<Arc<[Uuid]>, ReplayError> {
    let changed = changed_topics(machine.image(), records).into_iter().collect();
    records.iter().try_for_each(|record| machine.replay(record))?;
    Ok(changed)
}

/// Topics whose partitions or configs these records change.
fn changed_topics(before: &MetadataImage, records: &[MetadataRecord]) -> BTreeSet<Uuid> {
    let mut changed = BTreeSet::new();
    for record in records {
        match record {
            MetadataRecord::Topic(record) => {
                changed.insert(record.topic_id);
            }
            MetadataRecord::Partition(record) => {
                changed.insert(record.topic_id);
            }
            MetadataRecord::PartitionChange(record) => {
                changed.insert(record.topic_id);
            }
            MetadataRecord::RemoveTopic(record) => {
                changed.insert(record.topic_id);
            }
            MetadataRecord::Config(record) if record.resource_type == resource_type::TOPIC => {
                changed.extend(before.topic(&record.resource_name).map(|topic| topic.id));
            }
            // A broker's config is the default of every topic's.
            MetadataRecord::Config(_) => changed.extend(before.topics().map(|topic| topic.id)),
            MetadataRecord::ProducerIds(_) | MetadataRecord::FeatureLevel(_) => {}
        }
    }
    changed
}

/// Fresh ids from the kernel's random numbers.
pub(crate) struct RandomIds(File);

impl RandomIds {
    pub(crate) fn open() -> std::io::Result<RandomIds> {
        File::open("/dev/urandom").map(RandomIds)
    }

    /// A random (version 4) UUID that does not begin with a dash, as command lines would take that for an option.
    pub(crate) fn draw(&self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            if let Err(error) = (&self.0).read_exact(&mut bytes) {
                panic!("/dev/urandom cannot be read: {error}");
            }
            bytes[6] = bytes[6] & 0x0f | 0x40;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            let id = Uuid::from_bytes(bytes);
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }
}

impl Shard {
    /// Changes metadata, from any shard.
    pub(crate) async fn metadata(self: &Rc<Shard>, command: Command) -> Result<Answer, ErrorCode> {
        match self.metadata.get() {
            Some(driver) => driver.submit(self, command).await,
            None => match self.ask(0, ShardRequest::Metadata(command)).await {
                ShardReply::Metadata(answer) => answer,
                _ => unreachable!("a reply has the name of its request"),
            },
        }
    }

    /// Exclusive end of what is stable in the metadata log.
    pub(crate) async fn metadata_end(self: &Rc<Shard>) -> i64 {
        match self.metadata.get() {
            Some(driver) => driver.log_end(),
            None => match self.ask(0, ShardRequest::MetadataEnd).await {
                ShardReply::MetadataEnd(offset) => offset,
                _ => unreachable!("a reply has the name of its request"),
            },
        }
    }
}
