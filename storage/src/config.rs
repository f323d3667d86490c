//! Sizes and limits of a store and of its logs.

use crate::producer::ENCODED_BYTES_MAX;

/// Least bytes between two entries of a segment index, whatever a log's settings say: below it the index would grow to
/// a large part of what it is of.
pub(crate) const INDEX_INTERVAL_BYTES_MIN: u32 = 512;

/// Most files of a journal's ring: a checkpoint that names more is damaged.
pub(crate) const JOURNAL_FILES_MAX: u32 = 1 << 16;

/// Limits of one store. Everything the engine keeps in memory or on disk besides the logs is bounded here.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Number of the shard, below 4096: stores of one data directory with different numbers never give out the same
    /// log id, so that logs can move between them.
    pub id_space: u16,
    /// Size of one journal file in bytes, a multiple of 4096. A frame lies within one file.
    pub journal_file_bytes: u64,
    /// Files in the journal's ring, 4 to 65,536. They are written in full once, then reused.
    pub journal_files: u32,
    /// Bytes that may be appended and not yet be settled in their segments; at the bound [`crate::Store::reserve`] waits.
    pub unsettled_bytes_max: usize,
    /// Bytes of frames that are not stable yet, kept in memory until they are; no further one is placed beyond it.
    pub frame_bytes_max: usize,
    /// Bytes of settled batches kept in memory for readers.
    pub cache_bytes_max: usize,
    /// Bytes of segment indexes kept in memory.
    pub index_bytes_max: usize,
    /// Segments with fewer bytes are read from their start rather than given an index again, or a file for it.
    pub index_worth_bytes: u64,
    /// Segment files held open.
    pub open_files_max: usize,
    /// Physical size limit of a segment file in bytes; a log's `segment_bytes` above it is capped.
    pub segment_bytes_max: u64,
    /// Bytes of retired segment files kept for reuse. Files come free once in a checkpoint, so a pool below twice
    /// `checkpoint_bytes` overflows and runs dry in turn: files are removed, and new ones written, for nothing. So it does where
    /// many logs, written to alike, begin new segments within a short time.
    pub recycle_bytes_max: u64,
    /// The pool may have one part in so many of the file system where that is more; 0 for none. It goes where room is short.
    pub recycle_volume_part: u64,
    /// Bytes of the file system that are kept for the broker's own data: with less of them free clients' appends are
    /// refused. `None` is a hundredth of the file system, at least 256 MiB and at most 2 GiB, and no more than a
    /// sixteenth of it.
    pub reserve_bytes: Option<u64>,
    /// Shares of at least this many bytes go straight to their segment.
    pub direct_bytes_min: usize,
    /// The shares of a commit of at most this many bytes all go inline, while write behind keeps up: one write and one flush
    /// are sooner done than one of each for every segment.
    pub inline_commit_bytes_max: usize,
    /// A commit closes when it holds this many bytes.
    pub commit_bytes_target: usize,
    /// A checkpoint is taken after this many appended bytes at most, and after fewer, down to a third of what recovery may
    /// replay, where many were committed behind the checkpoints before while these were under way.
    pub checkpoint_bytes: u64,
    /// Bytes of batches that may be committed behind a checkpoint under way in any case. More may as long as recovery would
    /// replay no more than `checkpoint_bytes` and these, and what came together while a checkpoint that was due began; at the
    /// bound commits wait for the checkpoint's end.
    pub checkpoint_late_bytes_max: u64,
    /// Bytes of a checkpoint that are encoded before other tasks have their turn.
    pub checkpoint_step_bytes: usize,
    /// Milliseconds between two looks for segments past their retention time, the first at most 30 s after opening;
    /// 0 looks at every tick. What is past its retention size goes at every tick.
    pub retention_check_interval_ms: i64,
    /// Idempotent producers kept in memory per log.
    pub producers_per_log_max: usize,
    /// Idempotent producers kept in memory for all logs together; one takes up to 160 bytes of a checkpoint. Those idle for
    /// longest are on disk.
    pub producers_max: usize,
    /// Idempotent producers kept on disk for all logs together, with what is superseded; beyond it those idle for longest are
    /// forgotten. A filter in memory takes 2.5 bytes for each.
    pub spilled_producers_max: u64,
    /// Bytes a second that are read to find damage in what is settled; 0 looks for none.
    pub scrub_bytes_per_second: u64,
    /// Milliseconds between two looks for producers past their log's `producer_expiration_ms`.
    pub producer_check_interval_ms: i64,
    /// Reading ahead of sequential readers.
    pub read_ahead: ReadAheadConfig,
    /// Cleaning of logs by key, until [`crate::Store::set_cleaner`].
    pub cleaner: CleanerConfig,
}

/// Limits of what a store reads ahead of those who read a log from the device in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAheadConfig {
    /// Bytes read ahead and kept in memory, in all; 0 reads nothing ahead. At the bound nothing more is read.
    pub bytes_max: usize,
    /// Bytes read at once, a multiple of 4096.
    pub stretch_bytes: u64,
    /// Most stretches ahead of one reader.
    pub stretches_max: usize,
    /// Bytes of stretches on their way at once, in all.
    pub in_flight_bytes_max: usize,
    /// The same while commits are under way, which come first; 0 begins nothing beside them.
    pub in_flight_bytes_beside_commits: usize,
    /// Readers at different places of one log that are read ahead for.
    pub readers_per_log_max: usize,
    /// The same of all logs together.
    pub readers_max: usize,
}

impl Default for ReadAheadConfig {
    fn default() -> Self {
        ReadAheadConfig {
            bytes_max: 32 << 20,
            stretch_bytes: 1 << 20,
            stretches_max: 8,
            in_flight_bytes_max: 8 << 20,
            in_flight_bytes_beside_commits: 0,
            readers_per_log_max: 4,
            readers_max: 256,
        }
    }
}

/// Limits of a store's cleaner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanerConfig {
    /// Logs are cleaned at all.
    pub enabled: bool,
    /// Bytes of the map from keys to offsets, 24 for a key and what the load leaves free. It is there while a log is
    /// cleaned, and no larger than that log needs.
    pub map_bytes_max: usize,
    /// Largest part of the map that is taken, in percent, 1-99.
    pub map_load_percent: u8,
    /// Bytes read at once, but for a single larger batch.
    pub io_bytes: usize,
    /// Bytes read and written per second at most.
    pub io_bytes_per_second: u64,
    /// Milliseconds until the next look for a log to clean, when there was none.
    pub backoff_ms: i64,
    /// Key of the hash that stands for a record's key, not to be guessed: who knows it can write keys that meet.
    pub hash_key: [u64; 2],
    /// Bound on the records of one batch, decompressed, in bytes; a log with a larger batch is not cleaned.
    pub decompressed_bytes_max: usize,
}

impl Default for CleanerConfig {
    /// Kafka's defaults, but for the hash key, which has to be set.
    fn default() -> Self {
        CleanerConfig {
            enabled: true,
            map_bytes_max: 128 << 20,
            map_load_percent: 90,
            io_bytes: 512 << 10,
            io_bytes_per_second: u64::MAX,
            backoff_ms: 15_000,
            hash_key: [0; 2],
            decompressed_bytes_max: penstock_format::DECOMPRESSED_BYTES_MAX,
        }
    }
}

impl StoreConfig {
    /// Most bytes of one [`crate::Log::append`]: a frame holds it in any case. A single batch may be larger, by
    /// [`crate::Log::append_large`].
    pub fn append_bytes_max(&self) -> usize {
        (self.journal_file_bytes / 4) as usize
    }

    /// Says what cannot work.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let block = crate::disk::BLOCK as u64;
        if !self.journal_file_bytes.is_multiple_of(block) || self.journal_file_bytes < 16 * block {
            return Err("journal_file_bytes must be a multiple of 4096 and at least 65536");
        }
        if self.journal_file_bytes > 1 << 30 || self.segment_bytes_max > 1 << 31 {
            return Err("journal_file_bytes may be 1 GiB and segment_bytes_max 2 GiB at most");
        }
        if self.producers_max.saturating_mul(ENCODED_BYTES_MAX) > crate::checkpoint::LEN_MAX / 2 {
            return Err("producers_max must leave half of a checkpoint to segments: at most 3 million");
        }
        if self.read_ahead.stretch_bytes == 0 || !self.read_ahead.stretch_bytes.is_multiple_of(block) {
            return Err("the read-ahead's stretch_bytes must be a multiple of 4096");
        }
        if self.read_ahead.stretches_max == 0 || self.read_ahead.readers_per_log_max == 0 {
            return Err("the read-ahead's stretches_max and readers_per_log_max must be at least 1");
        }
        if self.id_space >= 1 << 12 {
            return Err("id_space must be below 4096");
        }
        if !(1..=99).contains(&self.cleaner.map_load_percent) {
            return Err("the cleaner's map_load_percent must be 1 to 99");
        }
        if !(4..=JOURNAL_FILES_MAX).contains(&self.journal_files) {
            return Err("journal_files must be 4 to 65536");
        }
        if self.checkpoint_bytes == 0 {
            return Err("checkpoint_bytes must be at least 1");
        }
        if self.segment_bytes_max < 2 * block || !self.segment_bytes_max.is_multiple_of(block) {
            return Err("segment_bytes_max must be a multiple of 4096 and at least 8192");
        }
        Ok(())
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig {
            id_space: 0,
            journal_file_bytes: 64 << 20,
            journal_files: 8,
            unsettled_bytes_max: 64 << 20,
            frame_bytes_max: 32 << 20,
            cache_bytes_max: 128 << 20,
            index_bytes_max: 32 << 20,
            index_worth_bytes: 1 << 20,
            open_files_max: 4096,
            segment_bytes_max: 64 << 20,
            recycle_bytes_max: 3 << 30,
            recycle_volume_part: 0,
            reserve_bytes: None,
            direct_bytes_min: 32 << 10,
            inline_commit_bytes_max: 1 << 20,
            commit_bytes_target: 4 << 20,
            checkpoint_bytes: 768 << 20,
            checkpoint_late_bytes_max: 256 << 20,
            checkpoint_step_bytes: 64 << 10,
            retention_check_interval_ms: 0,
            producers_per_log_max: 10_000,
            producers_max: 1_000_000,
            spilled_producers_max: 16_000_000,
            scrub_bytes_per_second: 0,
            producer_check_interval_ms: 600_000,
            read_ahead: ReadAheadConfig::default(),
            cleaner: CleanerConfig::default(),
        }
    }
}

/// Settings of one log, under the meaning of Kafka's topic configs. They are not stored with the log: whoever
/// opens a store sets them again, and until then nothing is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: roll before a segment grows beyond it.
    pub segment_bytes: u64,
    /// `segment.ms`: roll when the first batch of the segment is older, in milliseconds.
    pub segment_ms: i64,
    /// `retention.bytes`, -1 for none; 0 and more are limits.
    pub retention_bytes: i64,
    /// `retention.ms`, -1 for none.
    pub retention_ms: i64,
    /// `index.interval.bytes`: at most one index entry per so many bytes.
    pub index_interval_bytes: u32,
    /// `flush.messages`: 1 acknowledges and shows records when they are stable, anything else at once.
    pub flush_messages: u64,
    /// `producer.id.expiration.ms`: idle time after which a producer is forgotten, in milliseconds.
    pub producer_expiration_ms: i64,
    /// `cleanup.policy` with `compact`: of records with the same key the newest stays.
    pub compaction: Option<Compaction>,
}

/// How a log is cleaned by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// `min.cleanable.dirty.ratio` in millionths: a log is cleaned when more of its bytes than that were not.
    pub min_dirty_millionths: u32,
    /// `min.compaction.lag.ms`: younger records stay.
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`: a log that has older records not cleaned is cleaned.
    pub max_lag_ms: i64,
    /// `delete.retention.ms`: how long tombstones stay after they were cleaned first.
    pub delete_retention_ms: i64,
}

impl Default for Compaction {
    fn default() -> Self {
        Compaction {
            min_dirty_millionths: 500_000,
            min_lag_ms: 0,
            max_lag_ms: i64::MAX,
            delete_retention_ms: 86_400_000,
        }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults, but durable, and without deletion.
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            retention_ms: -1,
            index_interval_bytes: 4096,
            flush_messages: 1,
            producer_expiration_ms: 86_400_000,
            compaction: None,
        }
    }
}

impl LogConfig {
    /// Bytes between two entries of an index, at least [`INDEX_INTERVAL_BYTES_MIN`].
    pub(crate) fn index_interval(&self) -> u32 {
        self.index_interval_bytes.max(INDEX_INTERVAL_BYTES_MIN)
    }

    /// Age at which a segment is rolled: what is to be cleaned by a time must not be active until after it.
    pub(crate) fn roll_ms(&self) -> i64 {
        let max_lag_ms = self.compaction.map_or(i64::MAX, |compaction| compaction.max_lag_ms.max(0));
        self.segment_ms.min(max_lag_ms)
    }

    /// Whether records are acknowledged and shown only when stable.
    pub fn is_durable(&self) -> bool {
        self.flush_messages <= 1
    }
}
