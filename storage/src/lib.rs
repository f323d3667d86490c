//! Durable partition logs with one group-commit journal per shard.
//!
//! A [`Store`] holds the logs of one shard. A [`Log`] is a directory of segments plus a configuration; it knows no
//! topic and no request. Everything appended to any log of the store joins one running commit: one journal frame
//! and direct segment writes, flushed together. See `docs/format.md` for every byte on disk.
//!
//! Single-threaded: stores and logs are cheap handles that belong to one thread.

mod bytes_io;
mod config;
pub mod disk;
pub mod epochs;
mod error;
pub mod index;
mod log;
pub mod producer;
pub mod retention;
mod store;

pub use config::{LogConfig, StoreConfig};
pub use error::{AppendError, Offline, OpenError, ReadError, StoreError};
pub use log::{AppendContext, Appended, Log, Origin, ProducerState, ReadBatches, Ticket, TimestampOffset};
pub use store::{RecoveryReport, Reservation, Store, StoreStats};
