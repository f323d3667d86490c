//! Reading from the device what nobody has read before, beside a load at half of the maximum. In turn there is no reader, one
//! that fetches, and a bare one of the same files: at its best, which tells what the device has to spare, and at the rate of the
//! one that fetched, which tells what reading so much costs whoever writes. A disk that stands still now and then meets all four.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::Bench;
use super::scenarios::{LOAD, beside, half_rate, loadgen};
use super::seconds::{STRETCH, p99s_between, summary};
use super::targets::LARGE_SEGMENTS;
use crate::broker::Broker;
use crate::load::Load;
use crate::process;
use crate::ring::BLOCK;

/// The topic that is read.
const TOPIC: &str = "cold";
/// A fill asks for so many millions of bytes a second: what the broker takes within its means.
const FILL_MB_PER_SECOND: u64 = 500;
/// Not counted behind a change of readers.
const SETTLE: Duration = Duration::from_secs(1);
/// What a reader takes to start and to end, beyond its stretch.
const OVERHEAD: Duration = Duration::from_secs(2);
/// Bytes of a bare read. One is under way at once: with four the disk had no more time for who writes.
const READ_BYTES: usize = 1 << 20;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Consumer,
    Bare,
    /// At the rate that the consumer had.
    BarePaced,
}

impl Who {
    /// A consumer stands before whoever reads at its rate.
    const ALL: [(&'static str, Who); 4] = [
        ("alone", Who::Nobody),
        ("beside_reader", Who::Consumer),
        ("beside_bare_reader", Who::Bare),
        ("beside_paced_reader", Who::BarePaced),
    ];
}

struct Stretch {
    who: Who,
    /// What counts of it.
    from: SystemTime,
    to: SystemTime,
    /// Millions of bytes a second that were read.
    read: f64,
}

/// Half of what went through at the maximum, with one reader or another or none.
pub(super) fn fetch_cold(bench: &Bench, before: &Map<String, Value>) -> io::Result<Value> {
    let rate_mb = half_rate(before)?;
    let broker = Broker::start(&bench.broker)?;
    let filled = fill(bench, &broker)?;
    let files = files_of(&bench.broker.data_dir)?;
    let rounds = (bench.duration.as_secs() / (2 * STRETCH.as_secs())).max(1) as u32;
    let measured = Bench { duration: (STRETCH + OVERHEAD) * Who::ALL.len() as u32 * rounds, ..bench.clone() };
    let load = Load::start(beside(&measured, &broker, rate_mb))?;
    thread::sleep(bench.warm_up);
    let mut stretches = Vec::new();
    for _ in 0..rounds {
        for (_, who) in Who::ALL {
            let fetched = stretches.iter().rfind(|stretch: &&Stretch| stretch.who == Who::Consumer);
            let paced = fetched.map_or(0.0, |stretch| stretch.read).max(1.0);
            stretches.push(stretch(bench, &broker, (who, paced), &files)?);
        }
    }
    let produced = load.finish()?.swap_remove(0);
    broker.stop()?;
    let mut figures = Map::new();
    for (name, who) in Who::ALL {
        let of: Vec<&Stretch> = stretches.iter().filter(|stretch| stretch.who == who).collect();
        let p99s = of.iter().flat_map(|stretch| p99s_between(&produced, stretch.from, stretch.to)).collect();
        let read = of.iter().map(|stretch| stretch.read).sum::<f64>() / of.len() as f64;
        if who != Who::Nobody && read == 0.0 {
            return Err(io::Error::other(format!("nothing was read {name}")));
        }
        let value = json!({ "read_megabytes_per_second": read, "p99_us_of_seconds": summary(p99s) });
        figures.insert(name.to_owned(), value);
    }
    figures.insert("filled_bytes".to_owned(), filled["bytes"].clone());
    figures.insert("produce".to_owned(), produced);
    Ok(Value::Object(figures))
}

/// Writes what is read later.
fn fill(bench: &Bench, broker: &Broker) -> io::Result<Value> {
    let seconds = (bench.cold_gib << 30).div_ceil(FILL_MB_PER_SECOND * 1_000_000);
    let fill = Bench { duration: Duration::from_secs(seconds), warm_up: Duration::ZERO, ..bench.clone() };
    let mut args =
        vec!["produce".to_owned(), format!("--topic={TOPIC}"), "--create-partitions=16".to_owned()];
    args.extend([LARGE_SEGMENTS[0].to_owned(), format!("--rate={FILL_MB_PER_SECOND}MB/s")]);
    args.extend(LOAD.map(str::to_owned));
    loadgen(&fill, Some(&broker.address), args)
}

/// One stretch of time; who reads at the consumer's rate is told what that was, in millions of bytes a second.
fn stretch(
    bench: &Bench,
    broker: &Broker,
    (who, paced): (Who, f64),
    files: &[PathBuf],
) -> io::Result<Stretch> {
    let from = SystemTime::now() + SETTLE;
    let read = match who {
        Who::Nobody => {
            thread::sleep(STRETCH);
            0.0
        }
        // Cold is what is read for the first time: no warm-up. Each stretch begins at the beginning, which is as cold, because
        // the broker reads past the page cache.
        Who::Consumer => {
            let reading = Bench { warm_up: Duration::ZERO, duration: STRETCH, ..bench.clone() };
            let args = ["consume", "--topic", TOPIC, "--cycle"].map(str::to_owned).to_vec();
            let read = loadgen(&reading, Some(&broker.address), args)?;
            read["megabytes_per_second"].as_f64().unwrap_or(0.0)
        }
        Who::Bare => read_bare(files, bench.client_core, STRETCH, f64::INFINITY)?,
        Who::BarePaced => read_bare(files, bench.client_core, STRETCH, paced)?,
    };
    Ok(Stretch { who, from, to: SystemTime::now(), read })
}

/// The segments there are before there is a load: nearly all are of the topic that is read.
fn files_of(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![data_dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push(path);
            }
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(io::Error::other(format!("no segments below {}", data_dir.display()))),
        false => Ok(found),
    }
}

/// Reads the files past the page cache, one after the other and anew from the first, at `rate_max` in the mean at most: what it
/// could not read in time it reads as soon as it can. Millions of bytes a second.
fn read_bare(files: &[PathBuf], core: usize, duration: Duration, rate_max: f64) -> io::Result<f64> {
    let read = move || -> io::Result<f64> {
        process::pin_thread(core)?;
        let mut memory = vec![0; READ_BYTES + BLOCK];
        let aligned = memory.as_ptr().align_offset(BLOCK);
        let buffer = &mut memory[aligned..aligned + READ_BYTES];
        let (begun, mut bytes) = (Instant::now(), 0);
        for path in files.iter().cycle() {
            let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
            let mut position = 0;
            loop {
                let read = file.read_at(buffer, position)? as u64;
                (bytes, position) = (bytes + read, position + read);
                let due = Duration::from_secs_f64(bytes as f64 / 1e6 / rate_max);
                thread::sleep(due.saturating_sub(begun.elapsed()).min(duration));
                if begun.elapsed() >= duration {
                    return Ok(bytes as f64 / 1e6 / begun.elapsed().as_secs_f64());
                }
                if read < READ_BYTES as u64 {
                    break;
                }
            }
        }
        Ok(0.0)
    };
    // On a thread of its own: what is pinned stays pinned.
    let joined = thread::scope(|scope| scope.spawn(read).join());
    joined.map_err(|_| io::Error::other("the reader panicked"))?
}
