//! One shard: the partitions it owns, its store, its connections, and how other shards reach them.
//!
//! Everything here belongs to the shard's thread. What another shard wants of it comes as a [`ShardRequest`]
//! through the mailbox; what it wants of itself it calls directly, by the same functions.

mod append;
mod append_line;
mod apply;
mod course;
mod describe;
mod fetch;
mod inbox;
mod metrics;
mod partition;
mod periodic;
mod query;
mod slow;
mod stages;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use penstock_core::config::memory::{MemoryPart, MemoryPlan};
use penstock_core::config::{BrokerConfig, CleanerLimits};
use penstock_core::fetch_session::FetchSessions;
use penstock_core::metadata::MetadataImage;
use penstock_storage::Store;
use penstock_storage::disk::ring::Ring;

pub(crate) use append::{AppendOutcomes, BegunAppends, PartitionAppend, PartitionAppended};
pub(crate) use course::{Course, Step};
pub(crate) use fetch::ReadRequest;
pub(crate) use inbox::{ShardReply, ShardRequest, serve_inbox};
pub(crate) use metrics::{InFlight, KINDS, LATENCY_BOUNDS_US, ShardMetrics};
pub(crate) use partition::{Partition, PartitionKey, PerPartition};
pub(crate) use periodic::{cleaner_config, periodic};
pub(crate) use query::{PartitionQuery, Query, QueryAnswer};
pub(crate) use stages::{Readings, Stage, Stages};
pub(crate) use watch::{Signal, first_signal};

use crate::groups::Groups;
use crate::metadata::{Driver, RandomIds};
use crate::network::admission::Admission;
use crate::network::connections::Connections;
use crate::network::registry::Registry;
use crate::network::request_budget::RequestBudget;
use crate::runtime::guard::Pulse;
use crate::runtime::mailbox::{Mailboxes, Post};
use crate::runtime::semaphore::Semaphore;
use crate::runtime::task;
use crate::runtime::workers::ShardWorkers;
use slow::SlowLog;
use watch::Watchers;

/// The disk under a shard's store.
pub(crate) type ShardDisk = penstock_storage::disk::real::RealDisk;
/// A log on that disk.
pub(crate) type ShardLog = penstock_storage::Log<ShardDisk>;

/// What all shards see: snapshots, counters, mailboxes, and what is fixed at start.
pub(crate) struct Shared {
    /// Number of shards.
    pub(crate) shards: usize,
    /// Broker configs as they were at start: what sizes and limits are taken from.
    pub(crate) config: BrokerConfig,
    /// What each shard may keep in memory.
    pub(crate) memory: MemoryPlan,
    /// The directory of all data.
    pub(crate) data_dir: PathBuf,
    /// Host and port that clients are told to connect to.
    pub(crate) advertised: (String, u16),
    /// The newest metadata.
    pub(crate) image: ArcSwap<MetadataImage>,
    /// Partitions that lie on another shard than the metadata says, because the number of shards changed.
    pub(crate) moved: HashMap<PartitionKey, usize>,
    pub(crate) mailboxes: Arc<Mailboxes<ShardRequest, ShardReply>>,
    pub(crate) admission: Arc<Admission>,
    /// The open connections of all shards.
    pub(crate) connections: Arc<Registry>,
    /// One per shard.
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    /// One per shard.
    pub(crate) pulses: Vec<Arc<Pulse>>,
}

impl Shared {
    /// The shard that holds a partition which the metadata places on `assigned`.
    pub(crate) fn shard_of(&self, key: &PartitionKey, assigned: usize) -> usize {
        match self.moved.get(key) {
            Some(&shard) => shard,
            None => assigned % self.shards,
        }
    }
}

/// One shard, as its tasks share it.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ring: Ring,
    pub(crate) store: Store<ShardDisk>,
    pub(crate) partitions: RefCell<HashMap<PartitionKey, Rc<Partition>>>,
    pub(crate) post: Post<ShardRequest, ShardReply>,
    pub(crate) workers: ShardWorkers,
    /// For requests about very many things; apart from `workers`, so that no batch waits behind them.
    pub(crate) desk: ShardWorkers,
    pub(crate) connections: Connections,
    /// Bytes of requests held at once.
    pub(crate) budget: RequestBudget,
    /// Fetch sessions of this shard's connections.
    pub(crate) fetch_sessions: RefCell<FetchSessions>,
    /// Bytes of fetched records that wait to be sent.
    pub(crate) answer_budget: Semaphore,
    pub(crate) metrics: Arc<ShardMetrics>,
    /// Latency of the stages of requests.
    pub(crate) stages: Rc<Stages>,
    pub(crate) slow: SlowLog,
    /// Appends take turns to wait for room, so that small ones do not keep it from a large one. Who needs not wait takes no
    /// turn, and none is ahead of it.
    room_line: Semaphore,
    draining: Cell<bool>,
    /// Fired when it drains: for whoever waits for other shards' partitions on behalf of a connection of this one.
    drain_watchers: Watchers,
    /// The metadata that the partitions follow: the newest that the driver asked for, published or not.
    followed: RefCell<Arc<MetadataImage>>,
    /// Changes of partitions are carried out one after the other.
    apply_turn: Semaphore,
    /// Some partition could not be brought to what the metadata says.
    behind: Cell<bool>,
    pub(crate) producer_ids: ProducerIds,
    /// Limits that the store's cleaner has.
    cleaner_limits: Cell<CleanerLimits>,
    /// Key of the hash that stands for records' keys in cleaning.
    cleaner_hash_key: [u64; 2],
    /// Consumer groups whose partition of `__consumer_offsets` is here.
    pub(crate) groups: Groups,
    /// On shard 0, once it has replayed the metadata.
    pub(crate) metadata: OnceCell<Driver>,
}

/// Producer ids that this shard may still hand out.
pub(crate) struct ProducerIds {
    /// Who takes an id has the turn: a block is fetched once, not by everyone who finds the last one used up.
    pub(crate) turn: Semaphore,
    pub(crate) next: Cell<i64>,
    pub(crate) left: Cell<i64>,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds { turn: Semaphore::new(1), next: Cell::new(0), left: Cell::new(0) }
    }
}

/// What a shard is made of besides what it makes itself.
pub(crate) struct ShardParts {
    pub(crate) index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) ring: Ring,
    pub(crate) store: Store<ShardDisk>,
    pub(crate) workers: ShardWorkers,
    pub(crate) desk: ShardWorkers,
    pub(crate) random: RandomIds,
    pub(crate) cleaner_hash_key: [u64; 2],
}

impl Shard {
    pub(crate) fn new(parts: ShardParts) -> Rc<Shard> {
        let ShardParts { index, shared, ring, store, workers, desk, random, cleaner_hash_key } = parts;
        let budget = |part| usize::try_from(shared.memory.bytes(part)).unwrap_or(usize::MAX);
        // The broker's slots are shared out evenly: a session stays with the shard of its connection.
        let slots = shared.config.fetch_sessions_max.div_ceil(shared.shards);
        // Ids of different shards begin far apart, so that none takes another's for its own.
        let apart = u32::MAX / u32::try_from(shared.shards).unwrap_or(1);
        let seed = (task::now_ms() as u32).wrapping_add(apart.wrapping_mul(index as u32));
        let fetch_sessions = FetchSessions::new(slots, shared.config.fetch_session_eviction_ms, seed);
        let stages = Rc::new(Stages::new(shared.metrics[index].clone()));
        store.set_meter(stages.clone());
        Rc::new(Shard {
            index,
            ring,
            store,
            partitions: RefCell::default(),
            post: Post::new(shared.mailboxes.clone(), index),
            workers,
            desk,
            connections: Connections::default(),
            budget: RequestBudget::new(budget(MemoryPart::Requests)),
            answer_budget: Semaphore::new(budget(MemoryPart::Answers)),
            fetch_sessions: RefCell::new(fetch_sessions),
            metrics: shared.metrics[index].clone(),
            stages,
            slow: SlowLog::new(shared.config.limits.slow_request_ms, shared.metrics[index].clone()),
            room_line: Semaphore::new(1),
            draining: Cell::new(false),
            drain_watchers: Watchers::default(),
            followed: RefCell::new(shared.image.load_full()),
            apply_turn: Semaphore::new(1),
            behind: Cell::new(false),
            producer_ids: ProducerIds::default(),
            cleaner_limits: Cell::new(shared.config.cleaner),
            cleaner_hash_key,
            groups: Groups::new(random),
            metadata: OnceCell::new(),
            shared,
        })
    }

    /// The partition, if it is open on this shard.
    pub(crate) fn partition(&self, key: &PartitionKey) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(key).cloned()
    }

    /// Whether the shard is on its way to the end: it accepts nothing new, and nobody waits for more data.
    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// A signal that is fired when the shard begins to drain, if it has not.
    pub(crate) fn drain_signal(&self) -> Arc<Signal> {
        let signal = Arc::default();
        self.drain_watchers.add(&signal);
        signal
    }

    /// A signal to wait for on this shard, fired by shard `by`.
    pub(crate) fn signal_by(&self, by: usize) -> Arc<Signal> {
        if by == self.index { Arc::default() } else { Arc::new(Signal::across(self.ring.doorbell())) }
    }

    /// Begins the way to the end.
    pub(crate) fn start_draining(&self) {
        self.draining.set(true);
        self.drain_watchers.fire();
        // Members that wait for each other would wait for ever.
        self.groups.unload_all();
        self.connections.drain();
    }

    /// Asks shard `to`, which may be this one, and waits for its answer.
    pub(crate) async fn ask(self: &Rc<Shard>, to: usize, request: ShardRequest) -> ShardReply {
        if to == self.index {
            Box::pin(inbox::execute(self, request)).await
        } else {
            self.post.send(to, request).await.await
        }
    }
}
