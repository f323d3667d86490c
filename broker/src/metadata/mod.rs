//! Drives the metadata machine of core: its log, its commands, its published image.
//!
//! It lives on shard 0. Commands are carried out one after the other: `handle` decides, the records become one batch
//! of the metadata log, and once that is stable they are replayed, the new image is published, and every shard brings
//! its partitions to it; only then the command is answered. Snapshots of the image bound the log, and what a start replays.

mod driver;
mod log;
mod snapshots;
#[cfg(test)]
mod tests;

pub(crate) use driver::{Driver, RandomIds};
pub(crate) use log::{LEADER_EPOCH, METADATA_LOG, open};
pub(crate) use snapshots::{snapshot_offset, snapshots_dir};
