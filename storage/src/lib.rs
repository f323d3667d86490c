//! Durable partition logs with one group-commit journal per shard.
//!
//! A [`Store`] holds the logs of one shard. A [`Log`] is a directory of segments plus a configuration; it knows no
//! topic and no request. Everything appended to any log of the store joins one running commit: one journal frame
//! and direct segment writes, flushed together. See `docs/format.md` for every byte on disk.
//!
//! Single-threaded: stores and logs are cheap handles that belong to one thread.

mod append;
mod bring_back;
mod bytes_io;
mod checkpoint;
mod checkpoint_file;
mod checkpointer;
mod clean;
mod cold;
mod commit;
mod committer;
mod config;
mod cut;
mod cuts;
pub mod disk;
pub mod epochs;
mod error;
mod files;
mod frame;
mod heads;
pub mod index;
mod indexes;
mod inline;
mod journal;
mod large;
mod log;
mod look;
mod lookup;
mod memory;
mod meter;
pub mod offline;
mod pending;
mod plan;
mod prepare;
pub mod producer;
mod producer_bound;
mod read;
mod read_ahead;
mod recovery;
mod recycle;
mod rescue;
mod reshard;
pub mod retention;
mod salvage;
mod scrub;
mod segment;
mod space;
mod spill;
mod spiller;
mod state;
mod store;
mod wait;
mod walk;
mod writeback;

pub use config::{CleanerConfig, Compaction, LogConfig, ReadAheadConfig, StoreConfig};
pub use error::{AppendError, Offline, OpenError, ReadError, StoreError};
pub use log::{AppendContext, Appended, Log, Origin, ProducerState, ReadBatches, Ticket, TimestampOffset};
pub use lookup::BatchSearch;
pub use meter::{CommitMeter, CommitStep};
pub use reshard::{Resharding, reshard, reshard_plan_path, shard_dir};
pub use store::{RecoveryReport, Reservation, Store, StoreStats};

#[cfg(test)]
mod tests;
