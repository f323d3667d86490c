//! How the descriptors that the process may have are shared out: connections must leave enough to the files of the
//! logs, which else could not be opened.

/// Descriptors of the process that belong to no shard: listeners, admin connections, locks, threads' own.
const PROCESS_FILES: usize = 64;
/// Descriptors of a shard besides journal, segments and connections: rings, directories and small files while they are
/// written, segment files that are being made.
const SHARD_FILES: usize = 128;
/// Segment files that a shard keeps open, at most and at least.
const SEGMENTS: std::ops::RangeInclusive<usize> = 64..=16_384;

/// Who may have how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of the broker.
    pub(super) connections: usize,
    /// Segment files that each shard keeps open; as many again may wait for their flush.
    pub(super) segments: usize,
}

/// Shares out `limit` descriptors; `journal_files` are those of one shard.
pub(super) fn share(limit: u64, shards: usize, journal_files: usize, connections_max: usize) -> Shares {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let others =
        PROCESS_FILES.saturating_add(shards.saturating_mul(SHARD_FILES.saturating_add(journal_files)));
    let left = limit.saturating_sub(others);
    let segments = (left / 2 / (2 * shards.max(1))).clamp(*SEGMENTS.start(), *SEGMENTS.end());
    let connections = left.saturating_sub(2 * segments * shards).max(1);
    Shares { connections: connections.min(connections_max), segments }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_files_stay_below_the_limit_together() {
        let of = |limit, shards, connections| share(limit, shards, 8, connections);
        assert_eq!(of(1 << 20, 4, 100_000), Shares { connections: 100_000, segments: 16_384 });
        assert_eq!(of(u64::MAX, 4, 100_000), Shares { connections: 100_000, segments: 16_384 });
        assert_eq!(of(65_536, 4, 100_000), Shares { connections: 32_464, segments: 4058 });
        assert_eq!(of(1024, 2, 100_000), Shares { connections: 344, segments: 86 });
        assert_eq!(of(1024, 2, 100), Shares { connections: 100, segments: 86 });
        assert_eq!(of(10, 2, 100_000), Shares { connections: 1, segments: 64 }, "too few for anything");
        for (limit, shards) in [(4096, 1), (4096, 8), (1 << 16, 32)] {
            let Shares { connections, segments } = of(limit, shards, usize::MAX);
            let files = 64 + shards * (128 + 8 + 2 * segments);
            assert!(connections + files <= limit as usize, "{limit} {shards}: {connections} and {files}");
        }
    }
}
