//! The driver of consumer groups: a shard hosts core's coordinator for the partitions of `__consumer_offsets` that it
//! owns, appends its records to their logs, and carries answers back to whoever asked, on whichever shard.
//!
//! Nothing is decided here. A request goes to the machine at once; its answer comes through a channel of its own, because
//! it may be minutes away (a JoinGroup waits for the other members) and must hold no credit of a mailbox meanwhile.
//!
//! Bounds: a connection has one group request under way at a time, so the answers waited for are as few as connections;
//! appends under way are bounded by core, per partition.

mod ask;
mod lead;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use penstock_core::coordinator::{AppendId, Effect, RequestId};
use penstock_core::group::{GroupCoordinator, GroupRecord, GroupResponse};
use penstock_format::{Batch, BatchBuilder, BuildError, NewRecord};
use penstock_protocol::{ErrorCode, Uuid};
use penstock_storage::{AppendContext, AppendError, Origin, Ticket};
use tokio::sync::oneshot;

use crate::metadata::RandomIds;
use crate::runtime::task;
use crate::shard::{Partition, Shard};

/// Where an answer goes.
pub(crate) type Answer = oneshot::Sender<GroupResponse>;

/// The coordinators of one shard and those who wait for them.
pub(crate) struct Groups {
    coordinator: RefCell<GroupCoordinator>,
    /// Partitions of `__consumer_offsets` that were begun, loading or serving.
    led: RefCell<BTreeMap<i32, Rc<Partition>>>,
    waiting: RefCell<HashMap<RequestId, Answer>>,
    requests: Cell<u64>,
    /// The deadline that a sleeping task looks after; `i64::MAX` for none.
    armed_ms: Cell<i64>,
    clock: Clock,
    random: RandomIds,
}

/// Milliseconds since 1970 that only go forward: sessions must not end because the wall clock was set.
struct Clock {
    started: Instant,
    started_ms: i64,
}

impl Clock {
    fn now_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_ms.saturating_add(elapsed)
    }
}

impl Groups {
    pub(crate) fn new(random: RandomIds) -> Groups {
        Groups {
            coordinator: RefCell::default(),
            led: RefCell::default(),
            waiting: RefCell::default(),
            requests: Cell::new(0),
            armed_ms: Cell::new(i64::MAX),
            clock: Clock { started: Instant::now(), started_ms: task::now_ms() },
            random,
        }
    }

    /// A random id, from which a new member's is made.
    pub(crate) fn fresh_id(&self) -> Uuid {
        self.random.draw()
    }

    /// Ends all coordinators; whoever waits is told to look for another.
    pub(crate) fn unload_all(&self) {
        let led = std::mem::take(&mut *self.led.borrow_mut());
        for partition in led.into_keys() {
            self.coordinator.borrow_mut().unload(partition, ErrorCode::NotCoordinator);
        }
        while let Some(effect) = self.next_effect() {
            // Appends of coordinators that are gone are withdrawn.
            if let Effect::Reply { to, response } = effect {
                self.answer(to, response);
            }
        }
    }

    fn next_effect(&self) -> Option<Effect<GroupRecord, GroupResponse>> {
        self.coordinator.borrow_mut().poll_effect()
    }

    fn answer(&self, to: RequestId, response: GroupResponse) {
        let answer = self.waiting.borrow_mut().remove(&to);
        if let Some(answer) = answer {
            // Nobody takes it where the connection is gone.
            drop(answer.send(response));
        }
    }

    /// Whether the partition is still this one under this leadership.
    fn leads(&self, number: i32, partition: &Rc<Partition>) -> bool {
        self.led.borrow().get(&number).is_some_and(|led| Rc::ptr_eq(led, partition))
    }
}

impl Shard {
    /// Does what the coordinators ask for, after each call into them.
    fn carry_out_groups(self: &Rc<Shard>) {
        while let Some(effect) = self.groups.next_effect() {
            match effect {
                Effect::Reply { to, response } => self.groups.answer(to, response),
                Effect::Append { partition, append, records } => {
                    self.append_group_records(partition, append, &records);
                }
            }
        }
        self.arm_group_timer();
    }

    fn append_group_records(self: &Rc<Shard>, number: i32, append: AppendId, records: &[GroupRecord]) {
        // Unloaded since: the coordinator has refused what waited for it.
        let Some(partition) = self.groups.led.borrow().get(&number).cloned() else { return };
        match write(&partition, records) {
            Ok(ticket) => {
                let shard = self.clone();
                task::spawn("group commit", async move {
                    let durable = partition.log.durable(ticket).await;
                    let groups = &shard.groups;
                    if durable.is_ok() {
                        let now_ms = groups.clock.now_ms();
                        groups.coordinator.borrow_mut().append_done(number, append, now_ms);
                    } else if groups.leads(number, &partition) {
                        tracing::error!(
                            shard = shard.index,
                            partition = number,
                            "groups are lost with their log"
                        );
                        groups.led.borrow_mut().remove(&number);
                        groups.coordinator.borrow_mut().unload(number, ErrorCode::NotCoordinator);
                    }
                    shard.carry_out_groups();
                });
            }
            Err(error) => {
                tracing::warn!(shard = self.index, partition = number, "group records refused: {error}");
                let now_ms = self.groups.clock.now_ms();
                let mut coordinator = self.groups.coordinator.borrow_mut();
                coordinator.append_failed(number, append, error.code(), now_ms);
            }
        }
    }

    /// Sees to it that a task looks at the coordinators when their next deadline is due.
    fn arm_group_timer(self: &Rc<Shard>) {
        let groups = &self.groups;
        let Some(deadline_ms) = groups.coordinator.borrow().poll_timeout() else { return };
        if deadline_ms >= groups.armed_ms.get() {
            return;
        }
        groups.armed_ms.set(deadline_ms);
        let left_ms = deadline_ms.saturating_sub(groups.clock.now_ms()).max(0);
        let shard = self.clone();
        task::spawn("group timer", async move {
            task::sleep(Duration::from_millis(left_ms.unsigned_abs())).await;
            let groups = &shard.groups;
            // An earlier deadline has come up meanwhile, and its task has looked.
            if groups.armed_ms.get() != deadline_ms {
                return;
            }
            groups.armed_ms.set(i64::MAX);
            let now_ms = groups.clock.now_ms();
            groups.coordinator.borrow_mut().handle_timeout(now_ms);
            shard.carry_out_groups();
        });
    }
}

/// Why records were not appended.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl WriteError {
    fn code(&self) -> ErrorCode {
        match self {
            WriteError::Build(_) | WriteError::Append(AppendError::TooLarge { .. }) => {
                ErrorCode::MessageTooLarge
            }
            WriteError::Append(AppendError::Offline(_)) => ErrorCode::KafkaStorageError,
            // A full disk, a closing store: somebody else's moment, worth asking again.
            WriteError::Append(_) => ErrorCode::CoordinatorNotAvailable,
        }
    }
}

/// Appends records as one batch. They are some hundred bytes and do not wait for room, as groups must go on where
/// producers are held back.
fn write(partition: &Partition, records: &[GroupRecord]) -> Result<Ticket, WriteError> {
    let now_ms = task::now_ms();
    let context =
        AppendContext { leader_epoch: partition.leader_epoch(), now_ms, origin: Origin::Coordinator };
    Ok(partition.log.append(vec![batch(records, now_ms)?], context)?.ticket)
}

fn batch(records: &[GroupRecord], now_ms: i64) -> Result<Batch, BuildError> {
    let mut builder = BatchBuilder::new();
    for record in records {
        let bytes = record.encode();
        let record = NewRecord {
            timestamp: now_ms,
            key: Some(&bytes.key),
            value: bytes.value.as_deref(),
            ..NewRecord::default()
        };
        builder.append(&record)?;
    }
    builder.finish()
}
