//! Moving logs between the stores of one data directory, when the number of shards has changed.
//!
//! All stores are settled first, so that a log is a directory and a record in a checkpoint. The moves are written down
//! in a plan before anything moves, and every step can be repeated: a crash at any point is made good by the next call,
//! which carries out a plan that it finds. Until then no store of the directory may be opened.
//!
//! Stores that lose all their logs stay, empty: their numbers must not be given out again, since logs keep theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::bring_back::BROUGHT_MAX;
use crate::bytes_io::Reader;
use crate::checkpoint::{self, Checkpoint, Encoder, LogRecord, Redo};
use crate::checkpoint_file::{decode, ends_with_crc, load_checkpoint, write_checkpoint};
use crate::config::StoreConfig;
use crate::cuts::{CutRecord, Cuts};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::producer::{Producer, ProducerTable};
use crate::spill::Spilled;
use crate::state::{first_unique, logs_dir};
use crate::store::Store;

const MAGIC: [u8; 4] = *b"PSRP";
const VERSION: u16 = 1;

/// A log's move.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    from: usize,
    to: usize,
    log: LogRecord,
}

/// Directory of a shard's store.
pub fn shard_dir(data_dir: &Path, shard: usize) -> PathBuf {
    data_dir.join(format!("shard-{shard}"))
}

/// Path of the plan. While this file exists, stores of the directory must not be opened before [`reshard`] was called.
pub fn reshard_plan_path(data_dir: &Path) -> PathBuf {
    data_dir.join("reshard.plan")
}

/// How logs are to be spread.
pub struct Resharding<'a> {
    /// Stores there will be. Those there are, are found by their directories.
    pub to: usize,
    /// For the name of a log and the shard that has it, the shard that shall have it, below `to`.
    pub assign: &'a dyn Fn(&str, usize) -> usize,
}

/// Finishes what a crash interrupted, then moves every log to the shard that `resharding` assigns. Gives the number of
/// logs moved. No store of the directory may be open.
pub async fn reshard<D: Disk>(
    disk: &D,
    data_dir: &Path,
    config: &StoreConfig,
    resharding: &Resharding<'_>,
    now_ms: i64,
) -> Result<usize, OpenError> {
    let plan_path = reshard_plan_path(data_dir);
    let mut moved = 0;
    if disk.exists(&plan_path).await.map_err(OpenError::io(plan_path.display()))? {
        let bytes = disk.read_small(&plan_path, checkpoint::LEN_MAX).await;
        let bytes = bytes.map_err(OpenError::io(plan_path.display()))?;
        if let Some(found) = newer_version(&bytes) {
            let file = plan_path.display().to_string();
            return Err(OpenError::NewerVersion { file, found, supported: VERSION });
        }
        let moves = decode_plan(&bytes)
            .ok_or_else(|| OpenError::Corrupt(format!("{} is damaged", plan_path.display())))?;
        moved += carry_out(disk, data_dir, &moves).await?;
    }
    let mut names = BTreeSet::new();
    let mut moves = Vec::new();
    // Spilled producers that may still move with their logs.
    let mut room = config.producers_max;
    for shard in 0..shards_found(disk, data_dir).await?.max(resharding.to) {
        let Checkpoint { logs, runs, .. } = settled(disk, data_dir, config, (shard, now_ms)).await?;
        let spilled = Spilled::new(&shard_dir(data_dir, shard));
        for (_, why) in spilled.open(disk, &runs).await? {
            tracing::error!("producers on disk do not move with their logs, and are unknown: {why}");
        }
        for mut log in logs {
            if !names.insert(log.name.clone()) {
                return Err(OpenError::Corrupt(format!("two shards have a log {}", log.name)));
            }
            let to = (resharding.assign)(&log.name, shard);
            assert!(to < resharding.to, "logs are assigned to shards that there will be");
            if to != shard {
                let log_max = config.producers_per_log_max.min(room);
                room -= take_along(disk, &spilled, &mut log, log_max).await?;
                moves.push(Move { from: shard, to, log });
            }
        }
    }
    if !moves.is_empty() {
        let plan = encode_plan(&moves);
        checkpoint::check_len(&plan).map_err(OpenError::io(plan_path.display()))?;
        let written = disk.write_small(&plan_path, plan.into()).await;
        written.map_err(OpenError::io(plan_path.display()))?;
        moved += carry_out(disk, data_dir, &moves).await?;
    }
    Ok(moved)
}

/// Takes the log's producers that are on disk into its record, up to so many, those seen last: another shard knows nothing of
/// this one's files. Gives how many.
async fn take_along<D: Disk>(
    disk: &D,
    spilled: &Spilled<D>,
    log: &mut LogRecord,
    producers_max: usize,
) -> Result<usize, OpenError> {
    let cuts = Cuts::from_records(&std::mem::take(&mut log.cuts));
    let mut table = match log.producers.is_empty() {
        true => ProducerTable::new(usize::MAX),
        false => match ProducerTable::decode(&log.producers, usize::MAX) {
            Ok((table, _)) => table,
            Err(error) => return Err(OpenError::Corrupt(format!("checkpoint of log {}: {error}", log.name))),
        },
    };
    let mut seen_last = SeenLast::new(producers_max.min(BROUGHT_MAX));
    let take = |run: u64, id: i64, producer: Producer| {
        if !cuts.void(run, &producer) && !table.knows(id) {
            seen_last.add(id, producer);
        }
    };
    if let Err(error) = spilled.each_of(disk, log.id, take).await {
        tracing::error!(
            log = log.name,
            "its producers on disk do not move with it, and are unknown: {error}"
        );
        return Ok(0);
    }
    let count = seen_last.producers.len();
    for ((_, id), producer) in seen_last.producers {
        table.bring_back(id, producer);
    }
    if count > 0 {
        log.producers = table.encode(log.end_offset);
    }
    Ok(count)
}

/// Up to so many producers, those seen last; by producer id where that is equal.
struct SeenLast {
    producers_max: usize,
    producers: BTreeMap<(i64, i64), Producer>,
}

impl SeenLast {
    fn new(producers_max: usize) -> SeenLast {
        SeenLast { producers_max, producers: BTreeMap::new() }
    }

    fn add(&mut self, id: i64, producer: Producer) {
        self.producers.insert((producer.last_seen_ms, id), producer);
        if self.producers.len() > self.producers_max {
            self.producers.pop_first();
        }
    }
}

/// Nothing that is in runs with lower numbers counts.
fn void_all(before: u64) -> CutRecord {
    CutRecord { before, offset: i64::MIN }
}

/// One more than the highest number of a shard's directory.
async fn shards_found<D: Disk>(disk: &D, data_dir: &Path) -> Result<usize, OpenError> {
    let entries = disk.list(data_dir).await.map_err(OpenError::io(data_dir.display()))?;
    let shard = |name: &str| name.strip_prefix("shard-")?.parse::<u16>().ok();
    let highest = entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| shard(&entry.name)).max();
    Ok(highest.map_or(0, |highest| usize::from(highest) + 1))
}

/// Settles a store (made if missing) and gives its checkpoint.
async fn settled<D: Disk>(
    disk: &D,
    data_dir: &Path,
    config: &StoreConfig,
    (shard, now_ms): (usize, i64),
) -> Result<Checkpoint, OpenError> {
    let dir = shard_dir(data_dir, shard);
    let config = StoreConfig { id_space: shard as u16, ..config.clone() };
    let (store, _) = Store::open(disk.clone(), &dir, config, now_ms).await?;
    let closed = store.close().await;
    closed.map_err(|error| OpenError::io(dir.display())(std::io::Error::other(error.to_string())))?;
    load_checkpoint(disk, &dir).await
}

/// Carries out a plan from wherever it was left, and removes it.
async fn carry_out<D: Disk>(disk: &D, data_dir: &Path, moves: &[Move]) -> Result<usize, OpenError> {
    let mut touched = BTreeSet::new();
    for Move { from, to, log } in moves {
        let source = logs_dir(&shard_dir(data_dir, *from)).join(&log.name);
        let target = logs_dir(&shard_dir(data_dir, *to)).join(&log.name);
        if disk.exists(&source).await.map_err(OpenError::io(source.display()))? {
            disk.rename(&source, &target).await.map_err(OpenError::io(target.display()))?;
        }
        touched.extend([*from, *to]);
    }
    for shard in &touched {
        let dir = logs_dir(&shard_dir(data_dir, *shard));
        disk.sync_dir(&dir).await.map_err(OpenError::io(dir.display()))?;
    }
    // Who gains first: a log is in two checkpoints for a while, but never in none.
    for gains in [true, false] {
        for shard in &touched {
            rewrite(disk, &shard_dir(data_dir, *shard), moves, (*shard, gains)).await?;
        }
    }
    let plan_path = reshard_plan_path(data_dir);
    disk.remove(&plan_path).await.map_err(OpenError::io(plan_path.display()))?;
    disk.sync_dir(data_dir).await.map_err(OpenError::io(data_dir.display()))?;
    Ok(moves.len())
}

/// Adds to a store's checkpoint the logs that it gains, or takes out those that it loses. Written even where nothing
/// changes: a crash may have left the copy as it was.
async fn rewrite<D: Disk>(
    disk: &D,
    dir: &Path,
    moves: &[Move],
    (shard, gains): (usize, bool),
) -> Result<(), OpenError> {
    let Checkpoint { redo, logs, runs } = load_checkpoint(disk, dir).await?;
    let mut by_name: BTreeMap<String, LogRecord> =
        logs.into_iter().map(|log| (log.name.clone(), log)).collect();
    for Move { from, to, log } in moves {
        if gains && *to == shard {
            by_name.entry(log.name.clone()).or_insert_with(|| {
                let mut log = log.clone();
                // It may have been here before.
                if !runs.is_empty() {
                    log.cuts = vec![void_all(first_unique(shard as u16, redo.run + 1))];
                }
                log
            });
        } else if !gains && *from == shard {
            by_name.remove(&log.name);
        }
    }
    let mut encoder = Encoder::new();
    by_name.values().for_each(|log| encoder.log(log));
    let bytes = encoder.finish(&redo, &runs);
    checkpoint::check_len(&bytes).map_err(OpenError::io(dir.display()))?;
    write_checkpoint(disk, dir, bytes.into()).await.map_err(OpenError::io(dir.display()))
}

fn encode_plan(moves: &[Move]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(moves.len() as u32).to_le_bytes());
    let mut encoder = Encoder::new();
    for Move { from, to, log } in moves {
        out.extend_from_slice(&(*from as u32).to_le_bytes());
        out.extend_from_slice(&(*to as u32).to_le_bytes());
        encoder.log(log);
    }
    out.extend_from_slice(&encoder.finish(&Redo::default(), &[]));
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The version of a plan that a newer version of this software wrote: believed only under a right crc.
fn newer_version(bytes: &[u8]) -> Option<u16> {
    if !ends_with_crc(bytes) {
        return None;
    }
    let version = bytes.strip_prefix(&MAGIC)?.first_chunk().map(|version| u16::from_le_bytes(*version));
    version.filter(|version| *version > VERSION)
}

fn decode_plan(bytes: &[u8]) -> Option<Vec<Move>> {
    let (content, _) = bytes.split_last_chunk::<4>().filter(|_| ends_with_crc(bytes))?;
    let mut reader = Reader::new(content);
    if reader.bytes(4)? != MAGIC || reader.u16()? != VERSION {
        return None;
    }
    reader.u16()?;
    let count = reader.count(8)?;
    let ways: Vec<_> =
        (0..count).map(|_| Some((reader.u32()? as usize, reader.u32()? as usize))).collect::<Option<_>>()?;
    let logs = decode(reader.bytes(reader.remaining())?).ok()?.logs;
    if logs.len() != ways.len() {
        return None;
    }
    Some(ways.into_iter().zip(logs).map(|((from, to), log)| Move { from, to, log }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::tests::{from_hex, in_version_1, in_version_2};

    #[test]
    fn golden_bytes_and_any_change_is_noticed() {
        let log = checkpoint::tests::sample().1;
        let moves = [Move { from: 0, to: 2, log }];
        let bytes = encode_plan(&moves);
        assert_eq!(bytes, from_hex(include_str!("../tests/golden/reshard-plan-checkpoint-v3.hex")));
        assert_eq!(decode_plan(&bytes).as_deref(), Some(&moves[..]));
        let mut newer = bytes.clone();
        newer[4] = 2;
        assert_eq!(newer_version(&newer), None, "its crc is wrong");
        let crc = crc32c::crc32c(&newer[..newer.len() - 4]);
        newer.splice(newer.len() - 4.., crc.to_le_bytes());
        assert_eq!((newer_version(&newer), newer_version(&bytes), newer_version(&[])), (Some(2), None, None));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(decode_plan(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn of_those_on_disk_no_more_are_kept_than_move() {
        let mut table = ProducerTable::new(1);
        let header = penstock_format::BatchHeader { producer_id: 1, producer_epoch: 0, ..Default::default() };
        table.record(&header, 0);
        let seen = |last_seen_ms: i64| {
            let mut known = table.get(1).cloned().unwrap();
            known.last_seen_ms = last_seen_ms;
            known
        };
        for producers_max in [0, 1, 10, 2000] {
            let mut seen_last = SeenLast::new(producers_max);
            for id in 0..1000 {
                seen_last.add(id, seen(id * 7 % 1000 / 2));
                assert_eq!(seen_last.producers.len(), producers_max.min(id as usize + 1));
            }
            let mut expected: Vec<_> = (0..1000).map(|id| (id * 7 % 1000 / 2, id)).collect();
            expected.sort_unstable();
            let expected = &expected[1000 - producers_max.min(1000)..];
            assert!(seen_last.producers.keys().eq(expected));
        }
    }

    #[test]
    fn plans_with_logs_of_earlier_checkpoint_versions_are_read() {
        let log = checkpoint::tests::sample().1;
        let of = |log| Some(vec![Move { from: 0, to: 2, log }]);
        let golden = from_hex(include_str!("../tests/golden/reshard-plan.hex"));
        assert_eq!(decode_plan(&golden), of(in_version_2(log.clone())));
        let golden = from_hex(include_str!("../tests/golden/reshard-plan-checkpoint-v1.hex"));
        assert_eq!(decode_plan(&golden), of(in_version_1(log)));
    }
}
