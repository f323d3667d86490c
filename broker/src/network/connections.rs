//! The connections of one shard.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::connection::Connection;
use crate::runtime::task;
use crate::shard::Shard;

/// Longest time between two looks for idle connections.
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// All open connections of a shard.
#[derive(Default)]
pub(crate) struct Connections(RefCell<Slab<Rc<Connection>>>);

impl Connections {
    pub(super) fn insert(&self, connection: Rc<Connection>) -> usize {
        self.0.borrow_mut().insert(connection)
    }

    pub(super) fn remove(&self, at: usize) {
        self.0.borrow_mut().remove(at);
    }

    /// Connections open on this shard.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    fn all(&self) -> Vec<Rc<Connection>> {
        self.0.borrow().iter().map(|(_, connection)| connection.clone()).collect()
    }

    /// Reads nothing more from any of them; each ends when what it asked is answered.
    pub(crate) fn drain(&self) {
        self.all().iter().for_each(|connection| connection.drain());
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        self.all().iter().for_each(|connection| connection.close());
    }
}

/// Closes connections that are idle or stalled, for as long as the shard runs.
pub(crate) async fn sweep(shard: Rc<Shard>) {
    let idle_max = shard.shared.config.connections_max_idle_ms.map(Duration::from_millis);
    let interval = idle_max.map_or(SWEEP_INTERVAL_MAX, |max| (max / 4).min(SWEEP_INTERVAL_MAX));
    let interval = interval.max(Duration::from_millis(50));
    loop {
        task::sleep(interval).await;
        let now = Instant::now();
        for connection in shard.connections.all() {
            if let Some(why) = connection.expired(now, idle_max) {
                tracing::info!(shard = shard.index, peer = %connection.peer(), "connection closed: {why}");
                connection.close();
            }
        }
    }
}
