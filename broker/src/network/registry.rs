//! All open connections of the process, for whoever looks from outside the shards.
//!
//! Each connection has an entry in a lock-free slab. Its shard holds the entry while the connection lives and is the only
//! one to write its counters; the admin thread reads them. Neither waits for the other. A lock stands only around the
//! list of who is there: it is taken when a connection opens or closes, and once for a page of the listing.
//!
//! Bounds: as many entries as `max.connections` admits, some hundred bytes each and two bounded texts of the client's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sharded_slab::{OwnedEntry, Slab};

/// Bytes kept of a text that a client gave.
const TEXT_BYTES_MAX: usize = 255;

/// The open connections.
#[derive(Default)]
pub(crate) struct Registry {
    entries: Arc<Slab<ConnectionEntry>>,
    open: Mutex<Open>,
}

/// Slab keys by connection id. Ids rise with every connection and are never given twice.
#[derive(Default)]
struct Open {
    keys: BTreeMap<u64, usize>,
    last_id: u64,
}

/// What is known of one connection.
pub(crate) struct ConnectionEntry {
    peer: SocketAddr,
    shard: usize,
    opened_at_ms: i64,
    client_id: OnceLock<Box<str>>,
    /// Name and version (KIP-511).
    software: OnceLock<(Box<str>, Box<str>)>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests: AtomicU64,
    answers: AtomicU64,
}

/// An entry held by its connection; it leaves the registry when this is dropped.
pub(crate) struct Registered {
    registry: Arc<Registry>,
    id: u64,
    entry: OwnedEntry<ConnectionEntry>,
}

/// A connection as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConnectionSummary {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) shard: usize,
    /// Milliseconds since 1970.
    pub(crate) opened_at_ms: i64,
    /// The client's name for itself, from the first request that has one.
    pub(crate) client_id: Option<String>,
    /// Name and version of the client's software, once it told.
    pub(crate) software: Option<(String, String)>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) requests: u64,
    /// Requests received whose answer is not ready yet.
    pub(crate) in_flight: u64,
}

/// Some of the open connections, by rising id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// How many are open in all.
    pub(crate) open: usize,
    pub(crate) connections: Vec<ConnectionSummary>,
    /// Id after which the next page begins, if there is more.
    pub(crate) next_after: Option<u64>,
}

impl Registry {
    /// Enters a connection. `None` if there is no room, which means more connections than memory could hold.
    pub(crate) fn enter(
        self: &Arc<Registry>,
        peer: SocketAddr,
        shard: usize,
        opened_at_ms: i64,
    ) -> Option<Registered> {
        let key = self.entries.insert(ConnectionEntry::new(peer, shard, opened_at_ms))?;
        let entry = self.entries.clone().get_owned(key)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.last_id += 1;
        let id = open.last_id;
        open.keys.insert(id, key);
        drop(open);
        Some(Registered { registry: self.clone(), id, entry })
    }

    /// Up to `limit` connections with ids above `after`.
    pub(crate) fn page(&self, after: u64, limit: usize) -> Page {
        let (open, keys) = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let later = open.keys.range((Bound::Excluded(after), Bound::Unbounded));
            // One more tells whether there is a next page.
            let keys: Vec<(u64, usize)> =
                later.take(limit.saturating_add(1)).map(|(id, key)| (*id, *key)).collect();
            (open.keys.len(), keys)
        };
        let shown = &keys[..keys.len().min(limit)];
        let next_after = if keys.len() > limit { shown.last().map(|(id, _)| *id) } else { None };
        // A connection may have ended since; its key names nobody any more, even if its place was taken again.
        let found = shown.iter().filter_map(|(id, key)| Some(self.entries.get(*key)?.summary(*id)));
        Page { open, connections: found.collect(), next_after }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut open = self.registry.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = open.keys.remove(&self.id);
        drop(open);
        if let Some(key) = key {
            // Freed when the last of those who hold it lets go.
            self.registry.entries.remove(key);
        }
    }
}

impl std::ops::Deref for Registered {
    type Target = ConnectionEntry;

    fn deref(&self) -> &ConnectionEntry {
        &self.entry
    }
}

impl ConnectionEntry {
    fn new(peer: SocketAddr, shard: usize, opened_at_ms: i64) -> ConnectionEntry {
        ConnectionEntry {
            peer,
            shard,
            opened_at_ms,
            client_id: OnceLock::new(),
            software: OnceLock::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            answers: AtomicU64::new(0),
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The shard that serves it.
    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    /// Notes the client's name for itself; the first one stays.
    pub(crate) fn note_client_id(&self, client_id: Option<&str>) {
        if let (Some(client_id), None) = (client_id, self.client_id.get()) {
            // Its shard alone sets it.
            let _ = self.client_id.set(bounded(client_id));
        }
    }

    /// Notes name and version of the client's software; the first ones stay.
    pub(crate) fn note_software(&self, name: &str, version: &str) {
        let _ = self.software.set((bounded(name), bounded(version)));
    }

    /// Name and version of the client's software, each empty while they are not known.
    pub(crate) fn software(&self) -> (&str, &str) {
        self.software.get().map_or(("", ""), |(name, version)| (name, version))
    }

    /// Counts bytes received.
    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes_in, bytes);
    }

    /// Counts bytes sent.
    pub(crate) fn sent(&self, bytes: usize) {
        add(&self.bytes_out, bytes);
    }

    /// Counts a request received.
    pub(crate) fn requested(&self) {
        add(&self.requests, 1);
    }

    /// Counts a request whose answer is ready.
    pub(crate) fn answered(&self) {
        add(&self.answers, 1);
    }

    fn summary(&self, id: u64) -> ConnectionSummary {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (requests, answers) = (get(&self.requests), get(&self.answers));
        ConnectionSummary {
            id,
            peer: self.peer,
            shard: self.shard,
            opened_at_ms: self.opened_at_ms,
            client_id: self.client_id.get().map(ToString::to_string),
            software: self.software.get().map(|(name, version)| (name.to_string(), version.to_string())),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            requests,
            // Read one after the other: answers may be ahead.
            in_flight: requests.saturating_sub(answers),
        }
    }
}

/// Adds without a locked instruction: each counter has one writer.
fn add(counter: &AtomicU64, count: usize) {
    counter.store(counter.load(Ordering::Relaxed) + count as u64, Ordering::Relaxed);
}

fn bounded(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn ids(page: &Page) -> Vec<u64> {
        page.connections.iter().map(|connection| connection.id).collect()
    }

    #[test]
    fn pages_go_by_id_and_leave_nobody_out() {
        let registry = Arc::new(Registry::default());
        let mut open: Vec<Registered> =
            (0..7).map(|port| registry.enter(peer(port), 0, 1).unwrap()).collect();
        let first = registry.page(0, 3);
        assert_eq!((first.open, ids(&first), first.next_after), (7, vec![1, 2, 3], Some(3)));
        // Whoever leaves or comes between two pages moves nobody.
        open.remove(0);
        open.push(registry.enter(peer(7), 0, 1).unwrap());
        let second = registry.page(3, 3);
        assert_eq!((second.open, ids(&second), second.next_after), (7, vec![4, 5, 6], Some(6)));
        let last = registry.page(6, 3);
        assert_eq!((ids(&last), last.next_after), (vec![7, 8], None));
        assert_eq!(registry.page(0, 0).connections, []);
        drop(open);
        assert_eq!(registry.page(0, 10), Page { open: 0, connections: vec![], next_after: None });
    }

    #[test]
    fn an_entry_tells_what_was_noted() {
        let registry = Arc::new(Registry::default());
        let entry = registry.enter(peer(9), 3, 1234).unwrap();
        entry.note_client_id(None);
        assert_eq!(registry.page(0, 1).connections[0].client_id, None);
        entry.note_client_id(Some("first"));
        entry.note_client_id(Some("second"));
        entry.note_software("kcat", "1.7.1");
        entry.received(100);
        entry.received(11);
        entry.sent(7);
        for _ in 0..3 {
            entry.requested();
        }
        entry.answered();
        let told = registry.page(0, 1).connections.remove(0);
        let wanted = ConnectionSummary {
            id: 1,
            peer: peer(9),
            shard: 3,
            opened_at_ms: 1234,
            client_id: Some("first".to_owned()),
            software: Some(("kcat".to_owned(), "1.7.1".to_owned())),
            bytes_in: 111,
            bytes_out: 7,
            requests: 3,
            in_flight: 2,
        };
        assert_eq!(told, wanted);
        assert_eq!(entry.software(), ("kcat", "1.7.1"));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "é".repeat(200);
        let kept = bounded(&long);
        assert_eq!(kept.len(), 254);
        assert!(long.starts_with(&*kept));
    }

    /// Connections come and go on several threads while another lists them: a listing never shows one that never was, and
    /// in the end nobody is left.
    #[test]
    fn listing_while_connections_come_and_go() {
        let registry = Arc::new(Registry::default());
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|shard| {
                    let registry = registry.clone();
                    scope.spawn(move || {
                        let mut held = std::collections::VecDeque::new();
                        for number in 0..2000 {
                            let entry = registry.enter(peer(shard), usize::from(shard), number).unwrap();
                            entry.received(usize::try_from(number).unwrap());
                            entry.requested();
                            held.push_back(entry);
                            if held.len() > 20 {
                                held.pop_front();
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for connection in registry.page(0, 100).connections {
                        assert_eq!(usize::from(connection.peer.port()), connection.shard);
                        let number = u64::try_from(connection.opened_at_ms).unwrap();
                        assert!([0, number].contains(&connection.bytes_in), "{connection:?}");
                        assert!(connection.requests <= 1);
                    }
                }
            });
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(registry.page(0, 100).open, 0);
    }
}
