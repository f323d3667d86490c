//! The idempotent producers of one log: which sequences were written, and where. Pure.
//!
//! Rules of Apache Kafka 4 (KIP-98, KIP-360, KIP-890): the last five batches of a producer's epoch are known by
//! sequence range and answered with their first offsets when they come again; the next batch must follow the last;
//! a new epoch begins at sequence 0; a producer that is not known (never seen, expired, or forgotten at the bound)
//! may begin at any sequence, since its records may have been deleted long ago.
//!
//! Unlike Kafka, idle time counts from when the broker last saw the producer, not from record timestamps, so a
//! producer of old records is not forgotten at once.
//!
//! Bound: at `producers_max` the sixteenth of them idle for longest is forgotten; producers with an open transaction
//! are not, and if nothing else is left, a further producer is refused. A store does not let it come to that: those idle for
//! longest go to disk before ([`crate::spiller`]), and come back when they write again.
//!
//! Everything but a check is a function of batch headers, so replaying a log's headers over a snapshot rebuilds the
//! table. Snapshot layout: `docs/format.md`, "Producer snapshot".

use penstock_format::{BatchHeader, add_sequence};

mod captured;
mod snapshot;

pub(crate) use snapshot::{ENCODED_BYTES_MAX, put_producer, read_producer};
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};

use captured::Producers;

/// Batches remembered per producer; clients keep at most as many in flight.
pub const BATCHES_KEPT: usize = 5;
/// Share of the table (one in so many) that is forgotten when it is full.
pub(crate) const FORGET_SHARE: usize = 16;

/// A batch that a producer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Last offset less first offset, and as much for sequences.
    pub offset_delta: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Its max timestamp in milliseconds.
    pub timestamp: i64,
}

impl ProducedBatch {
    fn of(header: &BatchHeader) -> ProducedBatch {
        ProducedBatch {
            last_sequence: header.last_sequence(),
            offset_delta: header.last_offset_delta,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        }
    }

    /// Sequence of the first record.
    pub fn first_sequence(&self) -> i32 {
        if self.last_sequence < 0 {
            self.last_sequence
        } else {
            add_sequence(self.last_sequence, -self.offset_delta)
        }
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its epoch.
    pub epoch: i16,
    /// Max timestamp of its last batch, in milliseconds.
    pub last_timestamp: i64,
    /// When the broker last saw it, in milliseconds.
    pub last_seen_ms: i64,
    /// First offset of its open transaction.
    pub transaction_first_offset: Option<i64>,
    /// Its last batches in this epoch, oldest first, at most [`BATCHES_KEPT`].
    batches: Vec<ProducedBatch>,
}

impl Producer {
    /// Last batches in this epoch, oldest first.
    pub fn batches(&self) -> &[ProducedBatch] {
        &self.batches
    }

    /// Sequence of its last record in this epoch, -1 if there is none.
    pub fn last_sequence(&self) -> i32 {
        self.batches.last().map_or(-1, |batch| batch.last_sequence)
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<&ProducedBatch> {
        self.batches.iter().find(|batch| {
            batch.first_sequence() == header.base_sequence && batch.last_sequence == header.last_sequence()
        })
    }

    /// Whether it tells of a batch at `offset` or later, or may.
    pub(crate) fn reaches(&self, offset: i64) -> bool {
        self.batches.iter().any(|batch| batch.last_offset >= offset)
            || self.transaction_first_offset.is_some_and(|first| first >= offset)
            || self.batches.is_empty() // its last word was a marker, whose offset is not kept
    }

    /// Whether it tells of this batch already, or of later ones; a log's batches follow each other.
    pub(crate) fn tells_of(&self, header: &BatchHeader) -> bool {
        match self.batches.last() {
            Some(last) => header.last_offset() <= last.last_offset,
            None => header.producer_epoch < self.epoch,
        }
    }

    /// Grows with what is told.
    fn progress(&self) -> (i16, i64) {
        (self.epoch, self.batches.last().map_or(-1, |last| last.last_offset))
    }

    fn expires(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.transaction_first_offset.is_none() && now_ms.saturating_sub(self.last_seen_ms) >= expiration_ms
    }

    fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }
}

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    /// Append it, then [`ProducerTable::record`] it.
    Append,
    /// It was appended before, there; answer with that and append nothing.
    Duplicate(ProducedBatch),
}

/// Why a batch is refused. Always the producer's doing, but for the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("sequence {found} of producer {producer_id} does not follow: {expected} expected")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The next sequence.
        expected: i32,
        /// The batch's first sequence.
        found: i32,
    },
    /// INVALID_PRODUCER_EPOCH.
    #[error("epoch {found} of producer {producer_id} is older than {current}")]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// Its epoch as known here.
        current: i16,
        /// The batch's epoch.
        found: i16,
    },
    /// The log, or its store, is full of producers with open transactions. Retriable.
    #[error("{producers} producers are known, and those with open transactions cannot be forgotten")]
    TooMany {
        /// How many.
        producers: usize,
    },
}

/// The producers of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerTable {
    producers: Producers,
    producers_max: usize,
}

impl ProducerTable {
    /// An empty table of at most `producers_max` producers, at least 1.
    pub fn new(producers_max: usize) -> ProducerTable {
        ProducerTable { producers: Producers::default(), producers_max: producers_max.max(1) }
    }

    /// Puts another table in the place of this one. A capture that has begun gets what this one has.
    pub(crate) fn replace(&mut self, other: ProducerTable) {
        self.producers_max = other.producers_max;
        self.producers.replace(other.producers);
    }

    /// Captures the table as it is now, for a log that ends at `end_offset`, without the work of encoding it.
    pub(crate) fn begin_capture(&mut self, end_offset: i64) {
        self.producers.begin_capture(end_offset);
    }

    /// The snapshot of the table as it was when the capture began; empty if no producer was known.
    pub(crate) fn end_capture(&mut self) -> Vec<u8> {
        self.producers.end_capture()
    }

    /// Judges a client's batch. Offsets in the header do not matter.
    pub fn check(&self, header: &BatchHeader) -> Result<ProducerCheck, ProducerError> {
        if !header.has_producer_id() {
            return Ok(ProducerCheck::Append);
        }
        let Some(producer) = self.known(header)? else { return Ok(ProducerCheck::Append) };
        if producer.epoch == header.producer_epoch
            && let Some(batch) = producer.duplicate_of(header)
        {
            return Ok(ProducerCheck::Duplicate(*batch));
        }
        self.check_epoch(header)?;
        let expected = match producer.batches.last() {
            Some(last) if producer.epoch == header.producer_epoch => add_sequence(last.last_sequence, 1),
            _ => 0,
        };
        if header.base_sequence == expected {
            Ok(ProducerCheck::Append)
        } else {
            Err(ProducerError::OutOfOrderSequence {
                producer_id: header.producer_id,
                expected,
                found: header.base_sequence,
            })
        }
    }

    /// Judges a coordinator's batch: by epoch alone, since offset commits and markers have no sequences.
    pub fn check_epoch(&self, header: &BatchHeader) -> Result<(), ProducerError> {
        if !header.has_producer_id() {
            return Ok(());
        }
        match self.known(header)? {
            Some(producer) if header.producer_epoch < producer.epoch => Err(ProducerError::InvalidEpoch {
                producer_id: header.producer_id,
                current: producer.epoch,
                found: header.producer_epoch,
            }),
            _ => Ok(()),
        }
    }

    /// The producer of a batch; an error if it is new and cannot be taken in.
    fn known(&self, header: &BatchHeader) -> Result<Option<&Producer>, ProducerError> {
        let known = self.producers.get(&header.producer_id);
        if known.is_none() && self.producers.len() >= self.producers_max {
            let open = self.producers.values().filter(|p| p.transaction_first_offset.is_some()).count();
            if open >= self.producers_max {
                return Err(ProducerError::TooMany { producers: open });
            }
        }
        Ok(known)
    }

    /// Takes note of an appended batch; its header has offsets. At the bound others are forgotten.
    pub fn record(&mut self, header: &BatchHeader, now_ms: i64) {
        if header.has_producer_id() && !self.producers.contains_key(&header.producer_id) {
            self.make_room();
        }
        self.note(header, now_ms);
    }

    /// As [`ProducerTable::record`], but beyond the bound where it is met: whoever calls has made room before, by taking others
    /// to disk. Also what replay calls for each header of a log, in order, with the time of replay.
    pub(crate) fn note(&mut self, header: &BatchHeader, now_ms: i64) {
        if !header.has_producer_id() {
            return;
        }
        let producer = self.producers.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            last_timestamp: header.max_timestamp,
            last_seen_ms: now_ms,
            transaction_first_offset: None,
            batches: Vec::with_capacity(1),
        });
        producer.enter_epoch(header.producer_epoch);
        producer.last_timestamp = header.max_timestamp;
        producer.last_seen_ms = now_ms;
        if header.is_control() {
            producer.transaction_first_offset = None;
            return;
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.remove(0);
        }
        if producer.batches.len() == producer.batches.capacity() {
            // Most producers write once to a partition, or often.
            producer.batches.reserve_exact(BATCHES_KEPT - producer.batches.len());
        }
        producer.batches.push(ProducedBatch::of(header));
        // What log cleaning left without records belongs to a transaction that ended.
        if header.is_transactional() && header.record_count > 0 {
            producer.transaction_first_offset.get_or_insert(header.base_offset);
        }
    }

    /// Forgets producers idle for `expiration_ms` or longer; those with an open transaction stay.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, producer| !producer.expires(now_ms, expiration_ms));
    }

    /// The ids of those that it would forget.
    pub(crate) fn expired(&self, now_ms: i64, expiration_ms: i64) -> impl Iterator<Item = i64> {
        let expired = self.producers.iter().filter(move |(_, known)| known.expires(now_ms, expiration_ms));
        expired.map(|(&id, _)| id)
    }

    /// Keeps those of `seen` (ids in order, with the time each was seen last), and forgets all others.
    pub(crate) fn keep_seen(&mut self, seen: &[(i64, i64)]) {
        self.producers.retain(|id, producer| match seen.binary_search_by_key(id, |(id, _)| *id) {
            Ok(at) => {
                producer.last_seen_ms = seen[at].1;
                true
            }
            Err(_) => false,
        });
    }

    /// Whether the table tells of batches at `offset` or later, so that cutting the log there makes it false: then
    /// it is made anew by recording the headers of the log up to the cut.
    pub fn reaches(&self, offset: i64) -> bool {
        self.producers.values().any(|producer| producer.reaches(offset))
    }

    /// Takes over who told of nothing at `offset` or behind it.
    pub(crate) fn keep_below(&mut self, uncut: &ProducerTable, offset: i64) {
        let below = uncut.producers.iter().filter(|(_, known)| !known.reaches(offset));
        self.producers.extend(below.map(|(&id, known)| (id, known.clone())));
    }

    /// Takes over what a cut at `offset` leaves as it is of the log's table before the cut: who told of nothing there or
    /// behind it, and transactions that are open all the time since before it. Whose batches before the cut are not known
    /// then has the next one refused and its transaction aborted: else it would count as ended.
    pub(crate) fn adopt(&mut self, uncut: &ProducerTable, offset: i64) {
        for (&id, known) in uncut.producers.iter() {
            let open = known.transaction_first_offset.filter(|first| *first < offset);
            if !known.reaches(offset) {
                self.producers.insert(id, known.clone());
            } else if open.is_some() {
                let left = || {
                    let mut left = known.clone();
                    left.batches.retain(|batch| batch.last_offset < offset);
                    left
                };
                self.producers.entry(id).or_insert_with(left).transaction_first_offset = open;
            }
        }
    }

    /// Producers with their ids, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(&id, producer)| (id, producer))
    }

    /// What is known of this one.
    pub(crate) fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.producers.get(&producer_id)
    }

    /// Producers with their ids, in the order of ids, from this id on.
    pub(crate) fn from(&self, producer_id: i64) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.range(producer_id..).map(|(&id, producer)| (id, producer))
    }

    /// Takes back what was known of a producer, unless more is known of it now; says whether it did.
    pub(crate) fn bring_back(&mut self, producer_id: i64, producer: Producer) -> bool {
        let unknown = !self.knows(producer_id);
        if unknown {
            self.producers.insert(producer_id, producer);
        }
        unknown
    }

    /// Takes over what is known of a producer, if that is more than this table has; says whether it did.
    pub(crate) fn take_newer(&mut self, producer_id: i64, known: &Producer) -> bool {
        let newer = self.get(producer_id).is_none_or(|told| told.progress() < known.progress());
        if newer {
            self.producers.insert(producer_id, known.clone());
        }
        newer
    }

    /// Lets go of a producer of which no more is known than this; says whether it did.
    pub(crate) fn let_go(&mut self, producer_id: i64, known: &Producer) -> bool {
        let same = self.producers.get(&producer_id).is_some_and(|producer| producer == known);
        if same {
            self.producers.remove(&producer_id);
        }
        same
    }

    /// The same with another bound, which it may be beyond: whoever is too many goes to disk.
    pub(crate) fn bounded(mut self, producers_max: usize) -> ProducerTable {
        self.producers_max = producers_max.max(1);
        self
    }

    /// Most producers that it shall know.
    pub(crate) fn producers_max(&self) -> usize {
        self.producers_max
    }

    /// Producers known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether this one is known.
    pub fn knows(&self, producer_id: i64) -> bool {
        self.producers.contains_key(&producer_id)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// At the bound, forgets those idle for longest.
    fn make_room(&mut self) {
        if self.producers.len() < self.producers_max {
            return;
        }
        let surplus = self.producers.len() + 1 - self.producers_max;
        self.forget_idle(surplus.max(self.producers_max / FORGET_SHARE));
    }

    /// Forgets up to `count` producers without an open transaction, those idle for longest, by producer id where that
    /// is equal; says how many.
    pub fn forget_idle(&mut self, count: usize) -> usize {
        let mut idle = self
            .producers
            .iter()
            .filter(|(_, producer)| producer.transaction_first_offset.is_none())
            .map(|(&id, producer)| (producer.last_seen_ms, id))
            .collect::<Vec<_>>();
        let count = count.min(idle.len());
        idle.sort_unstable();
        for (_, id) in idle.drain(..count) {
            self.producers.remove(&id);
        }
        count
    }
}

#[cfg(test)]
mod tests;
