//! The memory of a broker, shared out to its shards and their parts. Pure: what the machine has is an input.

use super::broker::Limits;
use super::value::ConfigError;

/// Share of what the machine has to give that is taken where nothing is configured, in percent. The rest is for what has no
/// part: connections, metadata, the allocator, other programs.
const MACHINE_SHARE: u64 = 50;

/// A part of each shard's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryPart {
    /// Record batches kept for readers, and what is read ahead of them.
    Cache,
    /// Record batches that are not in their segments yet; producers wait beyond it.
    Unflushed,
    /// Frames of the journal that are not stable yet; further commits wait beyond it.
    Frames,
    /// Requests held; sockets are not read beyond it.
    Requests,
    /// Fetched records on their way to consumers.
    Answers,
    /// Indexes of segments.
    Indexes,
    /// Idempotent producers; the longest silent go to disk beyond it.
    Producers,
    /// Consumer groups and their offsets. Kept free for them: they are bounded by their numbers.
    Coordinators,
    /// What cleaning of compacted logs keeps of keys.
    Cleaner,
}

impl MemoryPart {
    /// All of them.
    pub const ALL: [MemoryPart; 9] = [
        MemoryPart::Cache,
        MemoryPart::Unflushed,
        MemoryPart::Frames,
        MemoryPart::Requests,
        MemoryPart::Answers,
        MemoryPart::Indexes,
        MemoryPart::Producers,
        MemoryPart::Coordinators,
        MemoryPart::Cleaner,
    ];

    /// Its name in metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            MemoryPart::Cache => "cache",
            MemoryPart::Unflushed => "unflushed",
            MemoryPart::Frames => "frames",
            MemoryPart::Requests => "requests",
            MemoryPart::Answers => "answers",
            MemoryPart::Indexes => "indexes",
            MemoryPart::Producers => "producers",
            MemoryPart::Coordinators => "coordinators",
            MemoryPart::Cleaner => "cleaner",
        }
    }

    /// Its share of the shard's memory in percent, and what it takes at least, and at most where nothing is configured, in
    /// MiB.
    fn share(self) -> (u64, u64, u64) {
        match self {
            MemoryPart::Cache => (20, 1, 256),
            MemoryPart::Unflushed => (25, 4, 512),
            MemoryPart::Frames => (5, 1, 32),
            MemoryPart::Requests | MemoryPart::Answers => (15, 1, 256),
            MemoryPart::Indexes => (5, 1, 32),
            MemoryPart::Producers => (5, 1, 256),
            MemoryPart::Coordinators | MemoryPart::Cleaner => (5, 1, 128),
        }
    }
}

/// What an idempotent producer takes of a log's memory, in bytes, with all its batches.
pub const PRODUCER_BYTES: u64 = 256;
/// Producers on disk for each in memory.
pub const SPILLED_PRODUCERS: u64 = 16;
/// What those take of memory for each, in bytes: two and a half of a filter, and the index of their files.
const SPILLED_BYTES: u64 = SPILLED_PRODUCERS * 4;

/// Bytes of each part of one shard's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    parts: [u64; MemoryPart::ALL.len()],
    read_ahead: u64,
}

/// What is read ahead of readers takes a quarter of the cache, in bytes at least and at most; it is of no use with less.
const READ_AHEAD_BYTES: (u64, u64) = (2 << 20, 64 << 20);

impl MemoryPlan {
    /// Shares out the bytes configured, or else a share of what the machine has; parts that have a setting of their own
    /// take what it says. A machine that has very little to give just now does not keep a broker from starting: each part
    /// then takes the least it can do with, some 12 MiB of a shard together.
    ///
    /// # Errors
    /// A part would get less than it needs, of the bytes configured or by its own setting; says which, and how much would do.
    pub fn new(limits: &Limits, machine: Option<u64>, shards: usize) -> Result<MemoryPlan, ConfigError> {
        let shards = shards.max(1) as u64;
        let configured = limits.memory_bytes;
        let total = configured.or(machine.map(|bytes| bytes / 100 * MACHINE_SHARE)).unwrap_or(u64::MAX);
        let mut parts = [0; MemoryPart::ALL.len()];
        for part in MemoryPart::ALL {
            let (percent, mib_min, mib_max) = part.share();
            let (least, most) = (mib_min << 20, mib_max << 20);
            let share = of_shard(total, shards, percent);
            let share = if configured.is_some() { share } else { share.clamp(least, most) };
            let set = own(limits, part);
            if set.is_none() && configured.is_some() && share < least {
                let own = |part: &MemoryPart| own(limits, *part).is_some();
                let needs = |part: MemoryPart| {
                    let (percent, mib_min, _) = part.share();
                    (mib_min * 100 * shards).div_ceil(percent)
                };
                let needed =
                    MemoryPart::ALL.into_iter().filter(|part| !own(part)).map(needs).max().unwrap_or(0);
                return Err(ConfigError::Conflict(format!(
                    "penstock.memory.bytes of {} MiB leaves {} KiB of each of {shards} shards to {}, which needs \
                     {mib_min} MiB: give {needed} MiB or more, or fewer shards",
                    total >> 20,
                    share >> 10,
                    part.name()
                )));
            }
            if let (Some(set), Some(name)) = (set.filter(|set| *set < least), setting(part)) {
                return Err(ConfigError::Conflict(format!(
                    "{name} of {set} bytes is too little: give {least} or more, or 0 for its part of penstock.memory.bytes"
                )));
            }
            parts[part as usize] = set.unwrap_or(share);
        }
        let cache = parts[MemoryPart::Cache as usize];
        let read_ahead = match limits.read_ahead_bytes {
            None if cache < 2 * READ_AHEAD_BYTES.0 => 0,
            None => (cache / 4).clamp(READ_AHEAD_BYTES.0, READ_AHEAD_BYTES.1),
            Some(bytes) if bytes > cache / 2 => {
                return Err(ConfigError::Conflict(format!(
                    "penstock.read.ahead.bytes of {bytes} is more than half of the {cache} bytes of the cache"
                )));
            }
            Some(bytes) => bytes,
        };
        Ok(MemoryPlan { parts, read_ahead })
    }

    /// Bytes of the cache's part that are for what is read ahead, of each shard.
    pub fn read_ahead(&self) -> u64 {
        self.read_ahead
    }

    /// Bytes of a part, of each shard.
    pub fn bytes(&self, part: MemoryPart) -> u64 {
        self.parts[part as usize]
    }

    /// Bytes of all parts, of each shard.
    pub fn total(&self) -> u64 {
        self.parts.iter().sum()
    }

    /// Idempotent producers that each shard may keep in memory.
    pub fn producers(&self) -> usize {
        // What a checkpoint can hold.
        usize::try_from(self.bytes(MemoryPart::Producers) / (PRODUCER_BYTES + SPILLED_BYTES))
            .unwrap_or(usize::MAX)
            .min(3_000_000)
    }
}

/// A part's own setting, where it is one of bytes.
fn setting(part: MemoryPart) -> Option<&'static str> {
    match part {
        MemoryPart::Cache => Some("penstock.cache.bytes.max"),
        MemoryPart::Unflushed => Some("penstock.unflushed.bytes.max"),
        MemoryPart::Requests | MemoryPart::Answers => Some("penstock.inflight.bytes.max"),
        MemoryPart::Frames
        | MemoryPart::Indexes
        | MemoryPart::Producers
        | MemoryPart::Coordinators
        | MemoryPart::Cleaner => None,
    }
}

/// What a part's own setting says, in bytes of each shard.
fn own(limits: &Limits, part: MemoryPart) -> Option<u64> {
    match part {
        MemoryPart::Cache => limits.cache_bytes,
        MemoryPart::Unflushed => limits.unflushed_bytes,
        MemoryPart::Requests | MemoryPart::Answers => limits.inflight_bytes,
        MemoryPart::Producers => {
            limits.shard_producers.map(|count| count as u64 * (PRODUCER_BYTES + SPILLED_BYTES))
        }
        MemoryPart::Frames | MemoryPart::Indexes | MemoryPart::Coordinators | MemoryPart::Cleaner => None,
    }
}

/// So many percent of each shard's part of `total`, in bytes.
fn of_shard(total: u64, shards: u64, percent: u64) -> u64 {
    let share = u128::from(total) * u128::from(percent) / (100 * u128::from(shards));
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerConfig, Overrides, StaticConfig};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn plan(settings: &[(&str, &str)], machine: Option<u64>, shards: usize) -> Result<MemoryPlan, String> {
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let statics = StaticConfig::new(settings.collect::<Overrides>()).unwrap();
        let limits = BrokerConfig::from_static(statics).unwrap().limits;
        MemoryPlan::new(&limits, machine, shards).map_err(|error| error.to_string())
    }

    #[test]
    fn the_machines_half_is_shared_out_and_never_more() {
        for (machine, shards) in [(1024 * MIB, 1), (4096 * MIB, 2), (64 << 30, 16), (1 << 44, 4)] {
            let plan = plan(&[], Some(machine), shards).unwrap();
            assert!(plan.total() * shards as u64 <= machine / 2, "{machine} {shards}: {plan:?}");
        }
        let large = plan(&[], Some(1 << 44), 4).unwrap();
        assert_eq!(
            large.bytes(MemoryPart::Cache),
            256 * MIB,
            "a large machine is not filled without being told to"
        );
        assert_eq!(large.producers(), (256 << 20) / 320);
        assert_eq!(plan(&[], None, 4).unwrap(), large);
        assert!(plan(&[], Some(0), 4).unwrap().total() < 16 * MIB, "it starts with the least");
    }

    #[test]
    fn reading_ahead_has_its_part_of_the_cache() {
        let ahead = |settings: &[(&str, &str)]| plan(settings, None, 1).map(|plan| plan.read_ahead());
        let cache = |bytes| ("penstock.cache.bytes.max", bytes);
        let of = |bytes| ("penstock.read.ahead.bytes", bytes);
        assert_eq!(ahead(&[]), Ok(64 * MIB));
        assert_eq!(ahead(&[cache("40000000")]), Ok(10_000_000));
        assert_eq!(ahead(&[cache("4194304")]), Ok(2 * MIB));
        assert_eq!(ahead(&[cache("4194303")]), Ok(0), "a shard of little memory goes without");
        assert_eq!(ahead(&[of("0")]), Ok(0));
        assert_eq!(ahead(&[of("134217728")]), Ok(128 * MIB));
        let refused = ahead(&[cache("40000000"), of("20000001")]).unwrap_err();
        assert!(refused.contains("penstock.read.ahead.bytes of 20000001"), "{refused}");
    }

    #[test]
    fn settings_win_and_too_little_is_told_by_name() {
        let memory = ("penstock.memory.bytes", "2147483648");
        let of = plan(&[memory, ("penstock.cache.bytes.max", "5000000")], Some(MIB), 2).unwrap();
        assert_eq!(of.bytes(MemoryPart::Cache), 5_000_000);
        assert_eq!(of.bytes(MemoryPart::Unflushed), (1 << 30) / 4);
        let refused = plan(&[("penstock.memory.bytes", "20971520")], None, 2).unwrap_err();
        assert!(
            refused.contains("penstock.memory.bytes of 20 MiB") && refused.contains("unflushed"),
            "{refused}"
        );
        let own = plan(&[("penstock.inflight.bytes.max", "3")], None, 1).unwrap_err();
        assert!(
            own.contains("penstock.inflight.bytes.max of 3 bytes") && own.contains("1048576 or more"),
            "{own}"
        );
        // What is told does.
        assert!(refused.contains("give 40 MiB or more"), "{refused}");
        for shards in 1..20 {
            let refused = plan(&[("penstock.memory.bytes", "1048576")], None, shards).unwrap_err();
            let told = refused.split("give ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
            let enough = (told.parse::<u64>().unwrap() * MIB).to_string();
            plan(&[("penstock.memory.bytes", &enough)], None, shards).unwrap();
        }
    }
}
