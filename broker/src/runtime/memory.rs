//! Memory that the machine has to give.

use std::fs;
use std::path::Path;

/// What this process could still take without anything being swapped out or killed, in bytes: what the kernel calls available,
/// and no more than its control group has left. `None` if the kernel does not say.
pub(crate) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_meminfo(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group_dirs(&groups).into_iter().filter_map(|dir| left_in(Path::new(&dir))).min();
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}

/// `MemAvailable` of /proc/meminfo.
fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Directories of the process's control groups and those above them (version 2), and the root as a container sees its own.
fn group_dirs(cgroup: &str) -> Vec<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let above = Path::new(path).ancestors().filter_map(Path::to_str);
    above.map(|dir| format!("/sys/fs/cgroup{}", dir.trim_end_matches('/'))).collect()
}

/// What a control group may still take; `None` if it has no limit. What it takes counts without its pages of files, which
/// the kernel gives up for others: a group that wrote much is full of them.
fn left_in(dir: &Path) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let limit = number(&text("memory.max")?)?;
    let taken = text("memory.current").and_then(|taken| number(&taken)).unwrap_or(0);
    let stat = text("memory.stat").unwrap_or_default();
    let of_files = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        ["inactive_file", "active_file"].contains(&name).then(|| number(bytes))?
    };
    let files = stat.lines().filter_map(of_files).fold(0, u64::saturating_add);
    Some(limit.saturating_sub(taken.saturating_sub(files)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_machine_and_groups_counts() {
        assert_eq!(of_meminfo("MemTotal: 9 kB\nMemAvailable:    1000 kB\n"), Some(1_024_000));
        assert_eq!(of_meminfo("MemTotal: 9 kB\n"), None);
        let dirs = group_dirs("1:cpu:/x\n0::/a/b\n");
        assert_eq!(dirs, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(left_in(dir.path()), None);
        fs::write(dir.path().join("memory.max"), "5000\n").unwrap();
        fs::write(dir.path().join("memory.current"), "2000\n").unwrap();
        assert_eq!(left_in(dir.path()), Some(3000));
        let stat = "anon 700\nfile 1300\ninactive_file 800\nactive_file 500\nslab 1\n";
        fs::write(dir.path().join("memory.stat"), stat).unwrap();
        assert_eq!(left_in(dir.path()), Some(4300), "pages of files are given up");
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
