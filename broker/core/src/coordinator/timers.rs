//! Deadlines by name: setting one again moves it.

use std::collections::{BTreeMap, BTreeSet};

/// The deadlines of a machine. What bounds the names bounds them.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    deadlines: BTreeMap<K, i64>,
    order: BTreeSet<(i64, K)>,
}

impl<K: Ord + Clone> Default for Timers<K> {
    fn default() -> Timers<K> {
        Timers { deadlines: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets or moves a deadline, in milliseconds since the Unix epoch.
    pub fn set(&mut self, key: K, deadline_ms: i64) {
        if let Some(old) = self.deadlines.insert(key.clone(), deadline_ms) {
            self.order.remove(&(old, key.clone()));
        }
        self.order.insert((deadline_ms, key));
    }

    /// Forgets a deadline.
    pub fn cancel(&mut self, key: &K) {
        if let Some((key, deadline_ms)) = self.deadlines.remove_entry(key) {
            self.order.remove(&(deadline_ms, key));
        }
    }

    /// The first deadline.
    pub fn next(&self) -> Option<i64> {
        self.order.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes the first deadline that has come at `now_ms`.
    pub fn take_due(&mut self, now_ms: i64) -> Option<K> {
        if self.next()? > now_ms {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }
}
