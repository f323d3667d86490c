//! Leads all shards through their stages, each of which all have to finish before the next begins: open the stores,
//! run, accept; drain, close. Seen from the main thread.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use penstock_core::metadata::MetadataImage;
use penstock_storage::disk::workers::Workers as DiskWorkers;
use tokio::sync::mpsc::UnboundedSender;

use super::data_dir::{DataDir, Meta};
use super::options::Options;
use super::shard_main::{self, Seat};
use super::{Refusal, refusal};
use crate::api;
use crate::network::admission::Admission;
use crate::runtime::executors;
use crate::runtime::guard::{self, Pulse};
use crate::runtime::mailbox::Mailboxes;
use crate::runtime::os;
use crate::runtime::workers::Workers;
use crate::shard::{PartitionKey, ShardMetrics, Shared};

/// Threads for directory operations, of all shards together.
const DISK_THREADS: usize = 4;
/// Time that requests under way get to finish at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// What a shard is told to do next.
pub(super) enum Order {
    /// Move the logs to the shards of another number of shards, before any store is opened (shard 0 alone).
    Reshard,
    /// Open the store; on shard 0, replay the metadata of the cluster of this id.
    Open { cluster_id: String },
    /// Open the partitions and answer other shards.
    Run(Arc<Shared>),
    /// Take connections.
    Accept,
    /// Take and begin nothing new; finish what was begun.
    Drain,
    /// Do not wait for what was begun.
    Hurry,
    /// Settle and close the store.
    Close,
}

/// A shard finished a stage.
pub(super) enum Report {
    Resharded,
    /// The store is open: partitions found in it, and on shard 0 the metadata.
    Opened(Vec<PartitionKey>, Option<Box<MetadataImage>>),
    Running,
    Accepting,
    Drained,
    Closed,
}

/// What the main thread hears.
pub(super) enum Event {
    Shard(usize, Report),
    Signal(&'static str),
    /// Something that keeps the broker from going on, in one sentence.
    Failed(String),
}

/// All shards.
pub(super) struct Fleet {
    orders: Vec<UnboundedSender<Order>>,
    inbox: Receiver<Event>,
    pulses: Vec<Arc<Pulse>>,
    /// A signal that came while a stage was under way.
    stopping: bool,
}

impl Fleet {
    /// Starts the shards' threads; they wait for orders.
    pub(super) fn launch(
        options: &Options,
        (dir, segment_files): (&DataDir, usize),
        listeners: Vec<TcpListener>,
        (events, inbox): (Sender<Event>, Receiver<Event>),
    ) -> Result<Fleet, Refusal> {
        let threads =
            |e: std::io::Error| Refusal(format!("cannot start threads: {e}; raise the limit of processes"));
        // Both pools before the shards pin themselves: their threads run on any core.
        let disk_workers = DiskWorkers::new(DISK_THREADS).map_err(threads)?;
        let workers = Workers::start("codec", options.shards.div_ceil(2), options.shards).map_err(threads)?;
        // One thread: cleaning may take a core, and no more, and little of one that a shard has use for.
        let computers = DiskWorkers::named("cleaner", 1, os::give_way).map_err(threads)?;
        let cleaner_hash_key = [(); 2].map(|()| RandomState::new().build_hasher().finish());
        // One thread: requests of the largest kind take turns, and no more than one core.
        let desk = Workers::start("desk", 1, options.shards).map_err(threads)?;
        let pulses: Vec<Arc<Pulse>> = (0..options.shards).map(|_| Arc::default()).collect();
        let mut orders = Vec::new();
        let mut seats = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
            orders.push(sender);
            seats.push(Some(Seat {
                index,
                dir: dir.path().to_owned(),
                lock: dir.lock_file().map_err(threads)?,
                shards: options.shards,
                segment_files,
                config: options.config.clone(),
                memory: options.memory,
                listener,
                pulse: pulses[index].clone(),
                disk_workers: disk_workers.clone(),
                computers: computers.clone(),
                cleaner_hash_key,
                workers: workers.clone(),
                desk: desk.clone(),
                orders: receiver,
                events: events.clone(),
            }));
        }
        let seats = Arc::new(Mutex::new(seats));
        executors::start(options.shards, move |index| {
            let seat = seats.lock().unwrap_or_else(PoisonError::into_inner)[index].take();
            shard_main::run(seat.unwrap_or_else(|| panic!("each shard starts once")))
        })
        .map_err(refusal)?;
        guard::start(pulses.clone(), api::registry::name_of_note).map_err(threads)?;
        Ok(Fleet { orders, inbox, pulses, stopping: false })
    }

    /// Moves logs between shard directories, as the number of shards has changed.
    pub(super) fn reshard(&mut self) -> Result<(), Refusal> {
        self.order(0, Order::Reshard);
        match self.next()? {
            Event::Shard(_, Report::Resharded) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Opens all stores and gathers what all shards share.
    pub(super) fn open(
        &mut self,
        options: &Options,
        meta: &Meta,
        address: SocketAddr,
    ) -> Result<Arc<Shared>, Refusal> {
        for shard in 0..self.orders.len() {
            self.order(shard, Order::Open { cluster_id: meta.cluster_id.clone() });
        }
        let mut found = HashMap::new();
        let mut image = None;
        for _ in 0..self.orders.len() {
            match self.next()? {
                Event::Shard(shard, Report::Opened(keys, metadata)) => {
                    found.extend(keys.into_iter().map(|key| (key, shard)));
                    image = image.or(metadata);
                }
                other => return Err(unexpected(other)),
            }
        }
        let image = image.ok_or_else(|| Refusal("shard 0 opened without metadata".to_owned()))?;
        Ok(Arc::new(share(options, address, *image, (found, self.pulses.clone()))))
    }

    /// Lets the shards run, and then accept connections.
    pub(super) fn start(&mut self, shared: &Arc<Shared>) -> Result<(), Refusal> {
        self.everyone(|| Order::Run(shared.clone()), |report| matches!(report, Report::Running))?;
        self.everyone(|| Order::Accept, |report| matches!(report, Report::Accepting))
    }

    /// Waits for a reason to stop.
    pub(super) fn wait(&mut self) -> Result<(), Refusal> {
        if self.stopping {
            return Ok(());
        }
        match self.inbox.recv() {
            Ok(Event::Signal(name)) => {
                tracing::info!("{name}: stopping");
                Ok(())
            }
            Ok(other) => Err(unexpected(other)),
            Err(_) => Err(Refusal("all shards are gone".to_owned())),
        }
    }

    /// Drains and closes all shards. A further signal, or the end of patience, cuts the draining short.
    pub(super) fn stop(&mut self) -> Result<(), Refusal> {
        (0..self.orders.len()).for_each(|shard| self.order(shard, Order::Drain));
        let mut deadline = Some(Instant::now() + DRAIN_MAX);
        let mut drained = 0;
        while drained < self.orders.len() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match self.inbox.recv_timeout(left) {
                Ok(Event::Shard(_, Report::Drained)) => drained += 1,
                Ok(Event::Signal(name)) => {
                    tracing::warn!("{name}: no longer waiting for requests under way");
                    deadline = None;
                    self.hurry();
                }
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(
                        "requests under way did not end within {DRAIN_MAX:?}: no longer waiting for them"
                    );
                    deadline = None;
                    self.hurry();
                }
                Ok(other) => return Err(unexpected(other)),
                Err(RecvTimeoutError::Disconnected) => return Err(Refusal("all shards are gone".to_owned())),
            }
        }
        self.everyone(|| Order::Close, |report| matches!(report, Report::Closed))
    }

    /// Ends the draining: what is not answered yet will not be.
    fn hurry(&self) {
        (0..self.orders.len()).for_each(|shard| self.order(shard, Order::Hurry));
    }

    fn order(&self, shard: usize, order: Order) {
        // A shard whose end is gone has reported why.
        let _ = self.orders[shard].send(order);
    }

    fn everyone(
        &mut self,
        order: impl Fn() -> Order,
        is_done: impl Fn(&Report) -> bool,
    ) -> Result<(), Refusal> {
        (0..self.orders.len()).for_each(|shard| self.order(shard, order()));
        let mut done = 0;
        while done < self.orders.len() {
            match self.next()? {
                Event::Shard(_, report) if is_done(&report) => done += 1,
                other => return Err(unexpected(other)),
            }
        }
        Ok(())
    }

    /// The next event that is no signal: a stage that has begun is finished first. Closing comes to its end by itself, and
    /// so does opening.
    fn next(&mut self) -> Result<Event, Refusal> {
        loop {
            match self.inbox.recv() {
                Ok(Event::Signal(name)) => {
                    tracing::info!("{name}: stopping as soon as this stage is finished");
                    self.stopping = true;
                }
                Ok(event) => return Ok(event),
                Err(_) => return Err(Refusal("all shards are gone".to_owned())),
            }
        }
    }
}

fn unexpected(event: Event) -> Refusal {
    match event {
        Event::Failed(reason) => Refusal(reason),
        Event::Signal(name) => Refusal(format!("stopped by {name}")),
        Event::Shard(shard, _) => Refusal(format!("shard {shard} reported out of turn")),
    }
}

fn share(
    options: &Options,
    address: SocketAddr,
    image: MetadataImage,
    (found, pulses): (HashMap<PartitionKey, usize>, Vec<Arc<Pulse>>),
) -> Shared {
    let config = options.config.clone();
    let shards = options.shards;
    let assigned = |key: &PartitionKey| {
        let topic = image.topic_by_id(key.topic_id)?;
        Some(topic.partition(key.partition)?.shard % shards)
    };
    let moved =
        found.into_iter().filter(|(key, shard)| assigned(key).is_some_and(|home| home != *shard)).collect();
    let overrides = config.connections_per_ip_overrides.iter();
    let overrides = overrides.flat_map(|(host, max)| addresses_of(host).into_iter().map(|ip| (ip, *max)));
    let admission =
        Admission::new(config.connections_max, config.connections_per_ip_max, overrides.collect());
    Shared {
        shards,
        data_dir: options.data_dir.clone(),
        advertised: options.advertised(address),
        image: ArcSwap::from_pointee(image),
        moved,
        mailboxes: Arc::new(Mailboxes::new(shards)),
        admission: Arc::new(admission),
        connections: Arc::default(),
        memory: options.memory,
        metrics: (0..shards).map(|_| Arc::new(ShardMetrics::default())).collect(),
        pulses,
        config,
    }
}

/// Addresses of a host named in `max.connections.per.ip.overrides`.
fn addresses_of(host: &str) -> Vec<IpAddr> {
    use std::net::ToSocketAddrs;
    match (host, 0).to_socket_addrs() {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(host, "max.connections.per.ip.overrides: the host does not resolve: {error}");
            Vec::new()
        }
    }
}
