//! Which cores shards run on.

use glommio::Placement;

/// The cores this process may use, as the kernel lists them; at least one.
pub(crate) fn usable() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let cpus = list.map(parse_list).unwrap_or_default();
    if cpus.is_empty() {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        return (0..count).collect();
    }
    cpus
}

/// Where shard `shard` of `shards` runs: on a core of its own, or, when there are more shards than cores, where
/// the kernel likes.
pub(crate) fn placement(shard: usize, shards: usize, usable: &[usize]) -> Placement {
    match usable.get(shard) {
        Some(&cpu) if shards <= usable.len() => Placement::Fixed(cpu),
        _ => Placement::Unbound,
    }
}

/// Parses the kernel's notation, such as `0-2,5`.
fn parse_list(list: &str) -> Vec<usize> {
    let mut cpus = Vec::new();
    for part in list.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.trim().parse::<usize>(), to.trim().parse::<usize>()) {
            cpus.extend(from..=to.min(from.saturating_add(4095)));
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_lists() {
        assert_eq!(parse_list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("3"), [3]);
        assert_eq!(parse_list(""), Vec::<usize>::new());
        assert!(!usable().is_empty());
    }

    #[test]
    fn pinned_only_while_cores_last() {
        assert!(matches!(placement(1, 2, &[4, 6]), Placement::Fixed(6)));
        assert!(matches!(placement(1, 3, &[4, 6]), Placement::Unbound));
    }
}
