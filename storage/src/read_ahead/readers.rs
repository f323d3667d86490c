//! Who reads which logs in order, and what was read ahead for them. Pure: positions, offsets and bytes.
//!
//! A reader is known by the offset that it is expected at next. Two reads in a row that begin where the one before
//! ended make it one to read ahead for; each further one doubles how far, up to the bound. Readers that meet at one
//! offset are one from there on. What was read ahead belongs to one reader, and is there for all.
//!
//! A stretch ends where a batch does, so that no batch lies in two. It stays until its reader took the one after it,
//! for those close behind, or until there is no room.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use crate::config::ReadAheadConfig;

/// Reads in a row after which it is read ahead.
const IN_A_ROW: u32 = 2;
/// Ticks after which a silent reader is forgotten.
const SILENT_TICKS: u64 = 10;

/// Where a stretch begins: the life of its segment, and the position in the file.
pub(super) type Key = (u64, u64);

/// Consecutive bytes of a segment.
#[derive(Debug)]
pub(super) struct Stretch {
    /// Never used before.
    pub id: u64,
    /// Position after it.
    pub end: u64,
    pub offsets: Range<i64>,
    /// Memory that it takes, in bytes.
    pub cost: usize,
    /// `None` while it is on its way.
    pub data: Option<Bytes>,
    /// Somebody took of it.
    pub is_taken: bool,
}

/// A reader of a log.
#[derive(Debug)]
struct Reader {
    id: u64,
    /// Its next read begins here.
    expected: i64,
    in_a_row: u32,
    /// Stretches to be ahead of it.
    depth: usize,
    ahead: VecDeque<Key>,
    /// The last that it passed.
    behind: Option<Key>,
    /// What is to be read next is being found out.
    plans: bool,
    /// When it read last: the least of them did the longest ago.
    used: u64,
    /// In which tick it did.
    used_tick: u64,
}

/// What to read ahead next for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Want {
    pub log_id: u64,
    pub reader_id: u64,
    pub log: Rc<str>,
    /// Offset from which on.
    pub from: i64,
    /// The stretch that ends there, by the life of its segment, and its end.
    pub after: Option<(u64, u64)>,
    ahead: usize,
}

/// A log that is read in order.
#[derive(Debug)]
struct ReadLog {
    name: Rc<str>,
    readers: Vec<Reader>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Readers {
    logs: BTreeMap<u64, ReadLog>,
    count: usize,
    stretches: BTreeMap<Key, Stretch>,
    /// Bytes of the longest stretch that there was.
    longest: u64,
    /// Where reads of the device are under way, by log and offset, and how many.
    under_way: BTreeMap<(u64, i64), usize>,
    /// Memory of stretches that are there.
    held_bytes: usize,
    next_id: u64,
    uses: u64,
    ticks: u64,
    /// Bytes that went without anybody having taken them.
    pub unused_bytes: u64,
}

impl Readers {
    /// Memory of stretches that are there.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn unique(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A read of a log begins at an offset.
    pub(super) fn begins(&mut self, place: (u64, i64)) {
        *self.under_way.entry(place).or_default() += 1;
    }

    /// A read that began there is over, whatever came of it.
    pub(super) fn ends(&mut self, place: (u64, i64)) {
        let Some(count) = self.under_way.get_mut(&place) else { return };
        *count -= 1;
        if *count == 0 {
            self.under_way.remove(&place);
        }
    }

    /// A read of a log went from an offset to another.
    pub(super) fn went(
        &mut self,
        (log_id, name): (u64, &Rc<str>),
        went: Range<i64>,
        config: &ReadAheadConfig,
    ) {
        let known = self.logs.get_mut(&log_id).map_or(&mut [][..], |log| &mut log.readers);
        let is_at = |reader: &Reader| reader.expected == went.start;
        let has_met = |reader: &Reader| reader.expected == went.end;
        let covers = |reader: &Reader| {
            // Further ahead it is another, who would move this one past what it has not read.
            let mut keys = reader.behind.iter().chain(reader.ahead.front());
            keys.any(|key| self.stretches.get(key).is_some_and(|of| of.offsets.contains(&went.start)))
        };
        let at = known.iter().position(is_at);
        if let Some(reader) = at.map(|at| &mut known[at]) {
            reader.in_a_row = reader.in_a_row.saturating_add(1);
            if reader.in_a_row >= IN_A_ROW {
                reader.depth = (reader.depth * 2).clamp(1, config.stretches_max);
            }
        }
        let found = at.or_else(|| known.iter().position(has_met)).or_else(|| known.iter().position(covers));
        let reader_id = match found {
            Some(found) => known[found].id,
            None if known.len() >= config.readers_per_log_max => {
                // Those for whom nothing is read ahead go first: who reads here and there is many readers.
                let least = known.iter().min_by_key(|reader| (reader.depth > 0, reader.used));
                let least = least.map(|least| least.id);
                least.into_iter().for_each(|least| self.forget_reader(log_id, least));
                self.add_reader((log_id, name), went.end)
            }
            None if self.count >= config.readers_max => return,
            None => self.add_reader((log_id, name), went.end),
        };
        self.advance(log_id, reader_id, went.end);
    }

    /// Lets go of those that are expected at an offset, with what is theirs; says whether there were any.
    pub(super) fn forget_readers_at(&mut self, log_id: u64, offset: i64) -> bool {
        let readers = self.logs.get(&log_id).into_iter().flat_map(|log| &log.readers);
        let there = readers.filter(|reader| reader.expected == offset);
        let ids: Vec<_> = there.map(|reader| reader.id).collect();
        ids.iter().for_each(|id| self.forget_reader(log_id, *id));
        !ids.is_empty()
    }

    fn add_reader(&mut self, (log_id, name): (u64, &Rc<str>), expected: i64) -> u64 {
        let id = self.unique();
        let new_log = || ReadLog { name: name.clone(), readers: Vec::new() };
        self.logs.entry(log_id).or_insert_with(new_log).readers.push(Reader::new(id, expected));
        self.count += 1;
        id
    }

    /// The reader comes to an offset, and lets go of what it passed.
    fn advance(&mut self, log_id: u64, reader_id: u64, to: i64) {
        self.uses += 1;
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        let Some(reader) = log.readers.iter_mut().find(|reader| reader.id == reader_id) else { return };
        reader.expected = reader.expected.max(to);
        (reader.used, reader.used_tick) = (self.uses, self.ticks);
        let expected = reader.expected;
        let mut passed = Vec::new();
        while let Some(first) = reader.ahead.front() {
            if self.stretches.get(first).is_some_and(|stretch| stretch.offsets.end > expected) {
                break;
            }
            passed.extend(reader.behind.take());
            reader.behind = reader.ahead.pop_front();
        }
        // Who came to the same place, and has nothing of its own, is the same from here on.
        let before = log.readers.len();
        log.readers.retain(|other| {
            let is_same = other.id != reader_id && other.expected == expected;
            !is_same || !other.ahead.is_empty() || other.behind.is_some()
        });
        self.count -= before - log.readers.len();
        passed.iter().for_each(|key| self.let_go(key));
    }

    /// What is wanted next, those first that have the least ahead.
    pub(super) fn wants(&self) -> Vec<Want> {
        let mut wants = Vec::new();
        for (log_id, log) in &self.logs {
            for reader in &log.readers {
                // Somebody reads what it expects next, without anything read ahead.
                let is_read = || self.under_way.contains_key(&(*log_id, reader.expected));
                let waits = reader.plans || (reader.ahead.is_empty() && is_read());
                if waits || reader.ahead.len() >= reader.depth {
                    continue;
                }
                let last = reader.ahead.back().and_then(|key| Some((key.0, self.stretches.get(key)?)));
                wants.push(Want {
                    log_id: *log_id,
                    reader_id: reader.id,
                    log: log.name.clone(),
                    from: last.as_ref().map_or(reader.expected, |(_, last)| last.offsets.end),
                    after: last.map(|(life, last)| (life, last.end)),
                    ahead: reader.ahead.len(),
                });
            }
        }
        wants.sort_by_key(|want| want.ahead);
        wants
    }

    fn reader(&mut self, log_id: u64, reader_id: u64) -> Option<&mut Reader> {
        self.logs.get_mut(&log_id)?.readers.iter_mut().find(|reader| reader.id == reader_id)
    }

    /// What the reader wants next is being found out, or was.
    pub(super) fn plans(&mut self, want: &Want, plans: bool) {
        if let Some(reader) = self.reader(want.log_id, want.reader_id) {
            reader.plans = plans;
        }
    }

    /// Nothing more is read ahead for the reader until it read in order again.
    pub(super) fn calm(&mut self, want: &Want) {
        if let Some(reader) = self.reader(want.log_id, want.reader_id) {
            (reader.in_a_row, reader.depth) = (0, 0);
        }
    }

    /// A stretch of the reader is on its way; gives its id. `None` if there is one already.
    pub(super) fn add(
        &mut self,
        want: &Want,
        key: Key,
        (end, end_offset): (u64, i64),
        cost: usize,
    ) -> Option<u64> {
        if self.stretches.contains_key(&key) {
            return None;
        }
        let id = self.unique();
        self.reader(want.log_id, want.reader_id)?.ahead.push_back(key);
        let offsets = want.from..end_offset;
        let stretch = Stretch { id, end, offsets, cost, data: None, is_taken: false };
        self.stretches.insert(key, stretch);
        self.longest = self.longest.max(end - key.1);
        Some(id)
    }

    /// A stretch came; says whether it is wanted still.
    pub(super) fn came(&mut self, key: Key, id: u64, data: Bytes) -> bool {
        let Some(stretch) = self.stretches.get_mut(&key).filter(|stretch| stretch.id == id) else {
            self.unused_bytes += data.len() as u64;
            return false;
        };
        self.held_bytes += stretch.cost;
        stretch.data = Some(data);
        true
    }

    /// A stretch could not be read.
    pub(super) fn failed(&mut self, want: &Want, key: Key, id: u64) {
        if self.stretches.get(&key).is_some_and(|stretch| stretch.id == id) {
            self.let_go(&key);
            if let Some(reader) = self.reader(want.log_id, want.reader_id) {
                reader.ahead.retain(|ahead| *ahead != key);
            }
            self.calm(want);
        }
    }

    /// A stretch of a segment that has the byte at a position. Those of readers at different places may overlap: one that
    /// is there comes before one on its way, and then the one that goes on the furthest.
    pub(super) fn find(&mut self, life: u64, position: u64) -> Option<(Key, &mut Stretch)> {
        let first = position.saturating_sub(self.longest);
        let near = self.stretches.range_mut((life, first)..=(life, position));
        let those = near.filter(|(_, stretch)| position < stretch.end);
        let best = those.max_by_key(|(_, stretch)| (stretch.data.is_some(), stretch.end));
        best.map(|(key, stretch)| (*key, stretch))
    }

    /// Whether a stretch is on its way.
    pub(super) fn is_coming(&self, key: Key, id: u64) -> bool {
        self.stretches.get(&key).is_some_and(|stretch| stretch.id == id && stretch.data.is_none())
    }

    fn let_go(&mut self, key: &Key) {
        let Some(stretch) = self.stretches.remove(key) else { return };
        let Some(data) = stretch.data else { return };
        self.held_bytes -= stretch.cost;
        if !stretch.is_taken {
            self.unused_bytes += data.len() as u64;
        }
    }

    /// Lets go of something that its reader has passed, that of the longest silent first; says whether there was any.
    pub(super) fn make_room(&mut self) -> bool {
        let readers = self.logs.values_mut().flat_map(|log| &mut log.readers);
        let oldest = readers.filter(|reader| reader.behind.is_some()).min_by_key(|reader| reader.used);
        let Some(key) = oldest.and_then(|reader| reader.behind.take()) else { return false };
        self.let_go(&key);
        true
    }

    fn forget_reader(&mut self, log_id: u64, reader_id: u64) {
        let Some(log) = self.logs.get_mut(&log_id) else { return };
        let gone: Vec<_> = log.readers.extract_if(.., |reader| reader.id == reader_id).collect();
        self.count -= gone.len();
        if log.readers.is_empty() {
            self.logs.remove(&log_id);
        }
        let keys = gone.iter().flat_map(|reader| reader.behind.iter().chain(&reader.ahead));
        keys.for_each(|key| self.let_go(key));
    }

    /// Forgets a log's readers and what was read ahead for them.
    pub(super) fn forget_log(&mut self, log_id: u64) {
        let readers = self.logs.get(&log_id).into_iter().flat_map(|log| &log.readers);
        let ids: Vec<_> = readers.map(|reader| reader.id).collect();
        ids.into_iter().for_each(|id| self.forget_reader(log_id, id));
    }

    /// Forgets all readers and all that was read ahead.
    pub(super) fn forget_all(&mut self) {
        let logs: Vec<_> = self.logs.keys().copied().collect();
        logs.into_iter().for_each(|log_id| self.forget_log(log_id));
    }

    /// Forgets what was read ahead of a segment.
    pub(super) fn forget_segment(&mut self, life: u64) {
        let keys: Vec<_> = self.stretches.range((life, 0)..=(life, u64::MAX)).map(|(key, _)| *key).collect();
        if keys.is_empty() {
            return;
        }
        keys.iter().for_each(|key| self.let_go(key));
        for reader in self.logs.values_mut().flat_map(|log| &mut log.readers) {
            reader.ahead.retain(|key| key.0 != life);
            reader.behind = reader.behind.filter(|key| key.0 != life);
        }
    }

    /// Time goes on: forgets the readers that were silent for long, and those of logs that are not of use.
    pub(super) fn tick(&mut self, is_of_use: impl Fn(&str, u64) -> bool) {
        self.ticks += 1;
        let mut gone = Vec::new();
        for (log_id, log) in &self.logs {
            let of_use = is_of_use(&log.name, *log_id);
            let is_gone = |reader: &&Reader| !of_use || reader.used_tick + SILENT_TICKS < self.ticks;
            gone.extend(log.readers.iter().filter(is_gone).map(|reader| (*log_id, reader.id)));
        }
        gone.into_iter().for_each(|(log_id, reader_id)| self.forget_reader(log_id, reader_id));
    }
}

impl Reader {
    fn new(id: u64, expected: i64) -> Reader {
        Reader {
            id,
            expected,
            in_a_row: 0,
            depth: 0,
            ahead: VecDeque::new(),
            behind: None,
            plans: false,
            used: 0,
            used_tick: 0,
        }
    }
}

#[cfg(test)]
mod tests;
