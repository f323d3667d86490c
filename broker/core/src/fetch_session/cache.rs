//! All sessions of a shard, and which of them make room.

use std::collections::{BTreeMap, BTreeSet};

use super::session::Session;
use super::{NO_SESSION, PARTITIONS_MAX};

/// What a session is worth: a follower's more than a consumer's, a larger one more than a smaller one.
type Worth = (bool, usize, i32);

/// The sessions of one shard.
#[derive(Clone, Debug)]
pub struct FetchSessions {
    slots: usize,
    eviction_ms: i64,
    sessions: BTreeMap<i32, Session>,
    /// By time of last use.
    idle: BTreeSet<(i64, i32)>,
    /// What a consumer's session may evict, and what a follower's may.
    evictable_by_all: BTreeSet<Worth>,
    evictable_by_privileged: BTreeSet<Worth>,
    partitions_len: usize,
    last_id: i32,
    evictions: u64,
}

impl FetchSessions {
    /// Room for `slots` sessions. One that was not used for `eviction_ms` makes room for any other, one that is as old may
    /// make room for a larger one. `seed` is random, so that ids from before a restart are not met again.
    pub fn new(slots: usize, eviction_ms: i64, seed: u32) -> FetchSessions {
        FetchSessions {
            slots,
            eviction_ms,
            sessions: BTreeMap::new(),
            idle: BTreeSet::new(),
            evictable_by_all: BTreeSet::new(),
            evictable_by_privileged: BTreeSet::new(),
            partitions_len: 0,
            last_id: i32::try_from(seed >> 1).expect("31 bits"),
            evictions: 0,
        }
    }

    /// Sessions now.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Partitions over all sessions.
    pub fn partitions_len(&self) -> usize {
        self.partitions_len
    }

    /// Sessions that had to make room since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    pub(super) fn get_mut(&mut self, id: i32) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Keeps a session, if there is or can be made room; gives its id.
    pub(super) fn insert(&mut self, session: Session, now_ms: i64) -> Option<i32> {
        let size = session.len();
        if size == 0 || self.partitions_len + size > PARTITIONS_MAX {
            return None;
        }
        if self.sessions.len() >= self.slots && !self.evict((session.privileged, size, 0), now_ms) {
            return None;
        }
        let id = self.fresh_id();
        assert_eq!(session.enlisted_len, 0, "enlisted once");
        self.sessions.insert(id, session);
        self.enlist(id, now_ms);
        Some(id)
    }

    fn fresh_id(&mut self) -> i32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(NO_SESSION + 1);
            if !self.sessions.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// Makes room for a session of this worth, if the rules allow.
    fn evict(&mut self, worth: Worth, now_ms: i64) -> bool {
        let Some((used_ms, idlest)) = self.idle.first().copied() else { return false };
        let victim = if now_ms.saturating_sub(used_ms) > self.eviction_ms {
            Some(idlest)
        } else {
            let evictable = if worth.0 { &self.evictable_by_privileged } else { &self.evictable_by_all };
            evictable.first().filter(|least| worth >= **least).map(|(_, _, id)| *id)
        };
        let Some(victim) = victim else { return false };
        self.remove(victim);
        self.evictions += 1;
        true
    }

    pub(super) fn remove(&mut self, id: i32) {
        self.delist(id);
        self.sessions.remove(&id);
    }

    /// Notes that a session was used, and that its size may have changed.
    pub(super) fn touch(&mut self, id: i32, now_ms: i64) {
        self.delist(id);
        self.enlist(id, now_ms);
    }

    fn enlist(&mut self, id: i32, now_ms: i64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.used_ms = now_ms;
        session.enlisted_len = session.len();
        let worth = (session.privileged, session.enlisted_len, id);
        let old = now_ms.saturating_sub(session.created_ms) > self.eviction_ms;
        self.idle.insert((now_ms, id));
        if old {
            self.evictable_by_all.insert(worth);
        }
        if old || !session.privileged {
            self.evictable_by_privileged.insert(worth);
        }
        self.partitions_len += session.enlisted_len;
    }

    fn delist(&mut self, id: i32) {
        let Some(session) = self.sessions.get(&id) else { return };
        // By the size under which it was enlisted, which a request may have changed since.
        let worth = (session.privileged, session.enlisted_len, id);
        self.idle.remove(&(session.used_ms, id));
        self.evictable_by_all.remove(&worth);
        self.evictable_by_privileged.remove(&worth);
        self.partitions_len -= session.enlisted_len;
    }
}
