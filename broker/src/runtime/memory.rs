//! Memory that the machine has to give.

use std::fs;
use std::path::Path;

/// Version 1 says of a group without a limit that it is as high as can be, less than a page.
const NO_LIMIT: u64 = 1 << 62;

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

/// Directories of the process's control groups and those above them, and the root as a container sees its own: of version 2,
/// and of version 1's for memory if there are such.
fn group_dirs(cgroup: &str) -> Vec<String> {
    let second = cgroup.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let first = cgroup.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|controller| controller == "memory").then_some(path)
    });
    let dirs = |root: &str, path: &str| -> Vec<String> {
        let above = Path::new(path).ancestors().filter_map(Path::to_str);
        above.map(|dir| format!("{root}{}", dir.trim_end_matches('/'))).collect()
    };
    let mut found = dirs("/sys/fs/cgroup", second);
    found.extend(first.into_iter().flat_map(|path| dirs("/sys/fs/cgroup/memory", path)));
    found
}

/// What a control group may still take; `None` if it has no limit. What it takes counts without its pages of files, which
/// the kernel gives up for others: a group that wrote much is full of them.
fn left_in(dir: &Path) -> Option<u64> {
    let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let limit = text("memory.max").or_else(|| text("memory.limit_in_bytes"));
    let limit = number(&limit?).filter(|limit| *limit < NO_LIMIT)?;
    let taken = text("memory.current").or_else(|| text("memory.usage_in_bytes"));
    let taken = taken.and_then(|taken| number(&taken)).unwrap_or(0);
    let stat = text("memory.stat").unwrap_or_default();
    // In version 1 those without `total_` leave out the groups below.
    let of_files = match text("memory.max") {
        Some(_) => ["inactive_file", "active_file"],
        None => ["total_inactive_file", "total_active_file"],
    };
    let bytes_of_files = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        of_files.contains(&name).then(|| number(bytes))?
    };
    let files = stat.lines().filter_map(bytes_of_files).fold(0, u64::saturating_add);
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
        let dirs = group_dirs("9:memory,x:/a\n1:cpu:/x\n");
        assert_eq!(dirs, ["/sys/fs/cgroup", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"]);
        let first = tempfile::tempdir().unwrap();
        fs::write(first.path().join("memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(left_in(first.path()), None);
        fs::write(first.path().join("memory.limit_in_bytes"), "5000\n").unwrap();
        fs::write(first.path().join("memory.usage_in_bytes"), "2000\n").unwrap();
        fs::write(first.path().join("memory.stat"), "inactive_file 1\ntotal_inactive_file 300\n").unwrap();
        assert_eq!(left_in(first.path()), Some(3300), "version 1");
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
