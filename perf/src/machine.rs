//! What the figures were measured on: enough to compare, nothing that names the machine or its user.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Processor, cores, memory, kernel and file system of `data_dir`.
pub(crate) fn fingerprint(data_dir: &Path) -> Value {
    let cpuinfo = read("/proc/cpuinfo");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let model = value_of(&cpuinfo, "model name");
    let memory_kib = value_of(&read("/proc/meminfo"), "MemTotal");
    let memory_gib = memory_kib.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / (1 << 20) as f64;
    let virtual_machine =
        cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
    json!({
        "processor": model,
        "cores": cores,
        "virtual_machine": virtual_machine,
        "memory_gib": (memory_gib * 10.0).round() / 10.0,
        "kernel": kernel_version(),
        "file_system": file_system(data_dir),
    })
}

/// The date as people write it, from the seconds since the Unix epoch.
pub(crate) fn date_of(unix_seconds: u64) -> String {
    // Days to a civil date (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = (unix_seconds / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What stands behind `name` and a colon in its first line.
fn value_of(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
}

/// The version alone: builds are sometimes named after their machine.
fn kernel_version() -> String {
    let release = read("/proc/sys/kernel/osrelease");
    let end = release.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(release.len());
    release[..end].to_owned()
}

/// The type of the file system that holds `path`.
fn file_system(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = read("/proc/mounts");
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (fields.next(), fields.next()) else { continue };
        if path.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    best.1.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
        ] {
            assert_eq!(date_of(seconds), date);
        }
    }

    #[test]
    fn fingerprint_is_filled() {
        let machine = fingerprint(Path::new("/"));
        assert!(machine["cores"].as_u64().unwrap() >= 1);
        assert_ne!(machine["file_system"], "unknown");
    }
}
