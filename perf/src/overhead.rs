//! What it costs to know where the time goes: the share of the shards' processor time that is spent on recording latencies and
//! on reading the clock for them, while the broker is under load.
//!
//! The kernel's profiler looks at the shards' threads some thousand times a second, with the callers of what runs there
//! (`perf record --call-graph dwarf`), and `addr2line` says which lines of the sources these are, inlined ones included. Clocks that are
//! read for something else (timers, the time of a record) are told apart by who reads them; a clock that is not known to be read
//! for something else counts as recording. What it cannot tell is what it costs others to carry along what is recorded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE};
use crate::figures::{Bench, FiguresArgs, loads, prepare, scenarios};
use crate::load::Load;
use crate::{process, work_dir};

/// Sources that do nothing but record.
const RECORDING: [&str; 5] = [
    "broker/src/shard/stages.rs",
    "broker/src/shard/course.rs",
    "broker/src/shard/slow.rs",
    "broker/src/shard/metrics.rs",
    "/hdrhistogram-",
];
/// Sources that look at a clock for something else: the time of a record and deadlines, timers and parking, the runtime, groups'
/// sessions, idle connections, the allocator.
const OTHER_CLOCKS: [&str; 6] = [
    "broker/src/runtime/task.rs",
    "storage/src/disk/ring.rs",
    "/glommio",
    "broker/src/groups/",
    "broker/src/network/connections.rs",
    "mimalloc",
];
/// Where the standard library reads clocks and counts with what they gave.
const TIME: [&str; 3] = ["std/src/time.rs", "core/src/time.rs", "unix/time.rs"];
/// Bytes of the stack that are kept of each look: enough for the callers of a clock.
const STACK_BYTES: u32 = 1024;
/// Samples without which nothing is told to a tenth of a percent.
const SAMPLES_MIN: u64 = 10_000;
/// Beyond the profile, so that the load does not end before it.
const SLACK: Duration = Duration::from_secs(60);

/// What to run, and the bound to hold.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverheadArgs {
    /// Loads to run: names as in `figures`
    #[arg(long, value_delimiter = ',', default_values = ["produce_16_partitions", "produce_keyed_1000_partitions", "produce_small_100_connections", "produce_small_1000_connections"])]
    only: Vec<String>,
    /// How long each is looked at
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of load before that
    #[arg(long, default_value_t = 8)]
    warm_up: u64,
    /// Looks a second
    #[arg(long, default_value_t = 1999)]
    frequency: u32,
    /// Highest share of a shard's time, in percent
    #[arg(long, default_value_t = 2.0)]
    bound: f64,
    /// Core of the broker
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// Core of the load generator
    #[arg(long, default_value_t = 1)]
    client_core: usize,
    /// Directory for data
    #[arg(long, default_value = "penstock-perf-data")]
    data_dir: PathBuf,
}

/// Runs the loads in turn; an error if one of them shows more than the bound.
pub(crate) fn run(args: &OverheadArgs) -> io::Result<()> {
    for tool in ["perf", "addr2line"] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|error| {
            io::Error::other(format!("{tool}: {error}; it comes with linux-perf and binutils"))
        })?;
    }
    let bench = prepare(&FiguresArgs {
        seconds: args.seconds,
        warm_up: args.warm_up,
        ..FiguresArgs::on(&args.data_dir, args.server_core, args.client_core)
    })?;
    let image = Image::read(&bench.broker.binary)?;
    let (mut figures, mut over) = (BTreeMap::new(), Vec::new());
    for name in &args.only {
        let load = loads(name).ok_or_else(|| io::Error::other(format!("there is no load named {name}")))?;
        let (samples, rate) = profile(&bench, args, load)?;
        let shares = Shares::of(&samples, &image.lines(&samples, &bench.work_dir)?, &image.name());
        over.extend(shares.fault(args.bound).map(|fault| format!("{name}: {fault}")));
        let mut told = shares.to_json();
        told["requests_per_second"] = json!(rate.round());
        let (overhead, error) = shares.overhead();
        println!("{name}: {overhead:.2} % of a shard's time, give or take {error:.2}");
        figures.insert(name.clone(), told);
    }
    work_dir::remove(&bench.work_dir)?;
    println!("{:#}", json!(figures));
    match over.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(over.join("; "))),
    }
}

/// The samples of the shards' threads under a load, and the requests answered in a second of it.
fn profile(bench: &Bench, args: &OverheadArgs, load: Vec<String>) -> io::Result<(Vec<Sample>, f64)> {
    let broker = Broker::start(&bench.broker)?;
    let mut spec = scenarios::load_spec(bench, Some(&broker.address), load);
    spec.duration += SLACK;
    let mut load = Load::start(spec)?;
    let requests = || broker.metric("penstock_request_seconds_count");
    // Topics are made and batches encoded before the first of them.
    let (deadline, idle) = (Instant::now() + PATIENCE, broker.metric("penstock_appended_bytes_total")?);
    while broker.metric("penstock_appended_bytes_total")? <= idle {
        if Instant::now() > deadline {
            return Err(io::Error::other("the load does not begin"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(bench.warm_up);
    let (threads, data) = (broker.threads("shard-")?, bench.work_dir.join("overhead.perf"));
    if threads.is_empty() {
        return Err(io::Error::other("the broker has no thread whose name begins with shard-"));
    }
    let (before, since) = (requests()?, Instant::now());
    let mut record = Command::new("perf");
    record.args(["record", "-q", "-N", "-e", "cpu-clock", "-F", &args.frequency.to_string()]);
    record.args(["--call-graph", &format!("dwarf,{STACK_BYTES}"), "-t", &threads.join(","), "-o"]);
    record.arg(&data).args(["--", "sleep", &args.seconds.to_string()]);
    let status = process::spawn_pinned(&mut record, Some(bench.client_core))?.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!(
            "perf record ended with {status}; may this user profile (kernel.perf_event_paranoid)?"
        )));
    }
    let rate = (requests()? - before) as f64 / since.elapsed().as_secs_f64();
    if rate == 0.0 || !load.runs()? {
        return Err(io::Error::other("the load ended before the profile did, or was not answered"));
    }
    drop(load);
    broker.stop()?;
    let samples = read(&data)?;
    fs::remove_file(&data)?;
    Ok((samples, rate))
}

/// Where a thread was: what ran first, then who called it.
type Sample = Vec<Frame>;

/// A place in a program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    /// Of the instruction in its file, in bytes.
    offset: u64,
    symbol: String,
    file: String,
}

/// The samples in a profile.
fn read(data: &Path) -> io::Result<Vec<Sample>> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]).arg(data);
    let mut child = script.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().ok_or_else(|| io::Error::other("perf script has no output"))?;
    let mut samples = vec![Sample::new()];
    for line in BufReader::new(output).split(b'\n') {
        let (line, last) = (line?, samples.len() - 1);
        match frame(&String::from_utf8_lossy(&line)) {
            Some(frame) => samples[last].push(frame),
            None if samples[last].is_empty() => {}
            None => samples.push(Sample::new()),
        }
    }
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("perf script ended with {status}")));
    }
    samples.retain(|sample| !sample.is_empty());
    Ok(samples)
}

/// A line of `perf script`: an address, a name, and a file in parentheses. Others are heads of samples or empty.
fn frame(line: &str) -> Option<Frame> {
    let line = line.strip_prefix(char::is_whitespace)?.trim();
    let (offset, rest) = line.split_once(' ')?;
    let (symbol, file) = rest.strip_suffix(')')?.rsplit_once(" (")?;
    let offset = u64::from_str_radix(offset, 16).ok()?;
    Some(Frame { offset, symbol: symbol.to_owned(), file: file.to_owned() })
}

/// Whether this is the standard library's or the kernel's way to read a clock, or to count with what it gave.
fn reads_clock(frame: &Frame) -> bool {
    ["clock_gettime", "time::Timespec>", "std::time::", "core::time::"]
        .iter()
        .any(|part| frame.symbol.contains(part))
}

/// The frame that tells whose work a sample is, and what it does: the first one, or, in the middle of reading a clock, who
/// reads it, as far as that is known. An address behind a call may be the first of the next line.
fn telling(sample: &Sample) -> (u64, &str, bool) {
    match sample.iter().position(|frame| !reads_clock(frame)) {
        Some(0) => (sample[0].offset, &sample[0].file, false),
        Some(reader) => (sample[reader].offset.saturating_sub(1), &sample[reader].file, true),
        None => (0, "", true),
    }
}

/// A program's file.
struct Image {
    path: PathBuf,
    /// Offset in the file, length, and address of what is loaded.
    loaded: Vec<(u64, u64, u64)>,
}

impl Image {
    fn read(path: &Path) -> io::Result<Image> {
        let loaded = loaded(&fs::read(path)?);
        match loaded.is_empty() {
            true => Err(io::Error::other(format!("{} is no 64-bit ELF file", path.display()))),
            false => Ok(Image { path: path.to_owned(), loaded }),
        }
    }

    /// As `perf` writes it.
    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The address of what is at this offset of the file.
    fn address(&self, offset: u64) -> Option<u64> {
        let holds = |(from, bytes, _): &&(u64, u64, u64)| (*from..from + bytes).contains(&offset);
        self.loaded.iter().find(holds).map(|(from, _, address)| offset - from + address)
    }

    /// For each offset that tells something of these samples: the lines of the sources it belongs to, the innermost first.
    fn lines(&self, samples: &[Sample], work_dir: &Path) -> io::Result<BTreeMap<u64, Vec<String>>> {
        let own = self.name();
        let told = samples.iter().map(telling).filter(|(_, file, _)| *file == own);
        let offsets: BTreeMap<u64, u64> =
            told.filter_map(|(offset, ..)| Some((self.address(offset)?, offset))).collect();
        let list = work_dir.join("overhead.addresses");
        let mut file = File::create(&list)?;
        offsets.keys().try_for_each(|address| writeln!(file, "{address:#x}"))?;
        let mut command = Command::new("addr2line");
        command.args(["-a", "-i", "-e"]).arg(&self.path).stdin(File::open(&list)?);
        let output = command.output()?;
        fs::remove_file(&list)?;
        if !output.status.success() {
            return Err(io::Error::other(format!("addr2line ended with {}", output.status)));
        }
        let (mut lines, mut at) = (BTreeMap::<u64, Vec<String>>::new(), None);
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match line.strip_prefix("0x").and_then(|address| u64::from_str_radix(address, 16).ok()) {
                Some(address) => at = offsets.get(&address),
                None => lines.entry(*at.unwrap_or(&0)).or_default().push(line.to_owned()),
            }
        }
        Ok(lines)
    }
}

/// What an ELF file has loaded: offset, length in the file, address. Empty of anything else.
fn loaded(elf: &[u8]) -> Vec<(u64, u64, u64)> {
    const LOAD: u64 = 1;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(elf.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(wide))
    };
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return Vec::new();
    }
    let header = || Some((number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?));
    let Some((table, size, count)) = header() else { return Vec::new() };
    let part = |index: u64| {
        let at = usize::try_from(table.checked_add(index * size)?).ok()?;
        let found = (number(at + 8, 8)?, number(at + 32, 8)?, number(at + 16, 8)?);
        (number(at, 4)? == LOAD).then_some(found)
    };
    (0..count).filter_map(part).collect()
}

/// What a sample was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Recording,
    /// A clock read for recording, and counting with what it gave.
    Clock,
    /// The same for something else.
    OtherClock,
    Other,
}

/// What is done at this place, whose lines are these, the innermost first.
fn work(lines: &[String], reading: bool) -> Work {
    let has = |line: &String, parts: &[&str]| parts.iter().any(|part| line.contains(part));
    let any = |parts: &[&str]| lines.iter().any(|line| has(line, parts));
    // The innermost of whoever asks: the standard library is asked for.
    let reader = lines.iter().find(|line| !has(line, &TIME) && !line.contains("/library/"));
    match reading || any(&TIME) {
        _ if !reading && any(&RECORDING) => Work::Recording,
        false => Work::Other,
        true if reader.is_some_and(|line| has(line, &OTHER_CLOCKS)) => Work::OtherClock,
        true => Work::Clock,
    }
}

/// How many samples are about what.
#[derive(Debug, Default)]
struct Shares {
    samples: u64,
    recording: u64,
    clocks: u64,
    other_clocks: u64,
    /// The places that record, by their lines in our own sources.
    places: BTreeMap<String, u64>,
}

impl Shares {
    /// By the lines of the program of this name.
    fn of(samples: &[Sample], lines: &BTreeMap<u64, Vec<String>>, name: &str) -> Shares {
        let mut shares = Shares { samples: samples.len() as u64, ..Shares::default() };
        for (offset, file, reading) in samples.iter().map(telling) {
            let found = lines.get(&offset).filter(|_| file == name);
            let lines = found.map_or(&[][..], Vec::as_slice);
            let count = match work(lines, reading) {
                Work::Recording => &mut shares.recording,
                Work::Clock => &mut shares.clocks,
                Work::OtherClock => {
                    shares.other_clocks += 1;
                    continue;
                }
                Work::Other => continue,
            };
            *count += 1;
            let own =
                lines.iter().find_map(|line| Some(&line[line.find("/src/")? + 5..]).filter(|_| is_own(line)));
            *shares.places.entry(own.unwrap_or("elsewhere").to_owned()).or_default() += 1;
        }
        shares
    }

    /// Percent of the samples that record or read a clock for it, and the standard error of that.
    fn overhead(&self) -> (f64, f64) {
        let percent = self.percent(self.recording + self.clocks);
        let part = percent / 100.0;
        (percent, (part * (1.0 - part) / self.samples.max(1) as f64).sqrt() * 100.0)
    }

    /// What is wrong with it, if anything: it is beyond the bound by more than chance, or saw too little to tell.
    fn fault(&self, bound: f64) -> Option<String> {
        if self.samples < SAMPLES_MIN {
            return Some(format!("{} samples are too few", self.samples));
        }
        // Every request is recorded: a program without line tables, or sources that have moved, would look free.
        if self.recording == 0 || self.clocks == 0 {
            return Some(
                "nothing that records was seen: the broker needs line tables, and its sources' names"
                    .to_owned(),
            );
        }
        let (percent, error) = self.overhead();
        (percent - 2.0 * error > bound).then(|| format!("{percent:.2} % is beyond {bound} %"))
    }

    fn percent(&self, samples: u64) -> f64 {
        samples as f64 / self.samples.max(1) as f64 * 100.0
    }

    fn to_json(&self) -> Value {
        const PLACES: usize = 8;
        let hundredths = |samples| (self.percent(samples) * 100.0).round() / 100.0;
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by_key(|(_, samples)| std::cmp::Reverse(**samples));
        let places: Vec<_> = places
            .iter()
            .take(PLACES)
            .map(|(place, samples)| json!([place, hundredths(**samples)]))
            .collect();
        json!({
            "samples": self.samples,
            "recording_percent": hundredths(self.recording),
            "clocks_percent": hundredths(self.clocks),
            "overhead_percent": hundredths(self.recording + self.clocks),
            "other_clocks_percent": hundredths(self.other_clocks),
            "places": places,
        })
    }
}

/// Whether this line is the project's own.
fn is_own(line: &str) -> bool {
    ["broker/src/", "storage/src/", "transport/"].iter().any(|part| line.contains(part))
        && !line.contains("/registry/")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(text: &str) -> Sample {
        text.lines().filter_map(frame).collect()
    }

    #[test]
    fn who_reads_a_clock_is_told_by_its_caller() {
        let sample = of("shard-0-1 \n\t  b46 __vdso_clock_gettime ([vdso])\n\
            \t  cf438 clock_gettime@@GLIBC_2.17 (/usr/lib/libc.so.6)\n\
            \t  9a6322 <std::sys::pal::unix::time::Timespec>::now (/bin/penstock)\n\
            \t  5f1850 penstock::api::produce::begin::{{closure}} (/bin/penstock)\n\
            \t  ffffffffffffffff [unknown] ([unknown])");
        assert_eq!(sample.len(), 5);
        assert_eq!(telling(&sample), (0x5f_184f, "/bin/penstock", true));
        let plain = of("\t  6b62c6 penstock::shard::stages::Stages::record (/bin/penstock)");
        assert_eq!(telling(&plain), (0x6b_62c6, "/bin/penstock", false));
    }

    #[test]
    fn what_is_not_known_to_be_something_else_is_recording() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let record =
            lines(&["/registry/src/x/hdrhistogram-7.6.0/src/lib.rs:361", "broker/src/shard/stages.rs:266"]);
        assert_eq!(work(&record, false), Work::Recording);
        let append = lines(&["library/std/src/time.rs:343", "broker/src/shard/append.rs:91"]);
        assert_eq!((work(&append, true), work(&append, false)), (Work::Clock, Work::Clock));
        let wall = lines(&[
            "library/std/src/time.rs:343",
            "broker/src/runtime/task.rs:44",
            "broker/src/shard/append.rs:85",
        ]);
        assert_eq!(work(&wall, true), Work::OtherClock);
        assert_eq!(work(&lines(&["broker/src/shard/append.rs:85"]), false), Work::Other);
        assert_eq!((work(&[], false), work(&[], true)), (Work::Other, Work::Clock));
        let runtime = lines(&[
            "library/std/src/time.rs:343",
            "broker/src/shard/append.rs:91",
            "/glommio-0.9/src/task/raw.rs:1",
        ]);
        assert_eq!(work(&runtime, true), Work::Clock, "the runtime runs it, and does not ask");
    }

    #[test]
    fn a_profile_that_saw_nothing_or_too_much_is_a_fault() {
        let of = |samples, recording, clocks| Shares { samples, recording, clocks, ..Shares::default() };
        assert_eq!(of(40_000, 400, 400).fault(2.0), None);
        assert_eq!(of(40_000, 420, 420).fault(2.0), None, "by chance, perhaps");
        assert!(of(40_000, 500, 500).fault(2.0).is_some());
        assert!(of(100, 1, 1).fault(2.0).is_some());
        assert!(of(40_000, 0, 400).fault(2.0).is_some() && of(40_000, 400, 0).fault(2.0).is_some());
    }

    #[test]
    fn what_has_no_known_caller_is_a_clock_for_recording() {
        let samples =
            [of("\t  b46 __vdso_clock_gettime ([vdso])"), of("\t  10 memmove (/usr/lib/libc.so.6)")];
        let lines = BTreeMap::from([(0x10, vec!["broker/src/shard/stages.rs:1".to_owned()])]);
        let shares = Shares::of(&samples, &lines, "/bin/penstock");
        assert_eq!((shares.samples, shares.recording, shares.clocks), (2, 0, 1));
    }

    /// The test's own program: its entry lies in what is loaded, and where the file says.
    #[test]
    fn what_is_loaded_is_found_in_a_program() {
        let path = std::env::current_exe().unwrap();
        let image = Image::read(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let entry = u64::from_le_bytes(bytes[0x18..0x20].try_into().unwrap());
        let within = |(_, length, address): &&(u64, u64, u64)| (*address..address + length).contains(&entry);
        let (from, _, address) = image.loaded.iter().find(within).unwrap();
        assert_eq!(image.address(entry - address + from), Some(entry));
        assert_eq!((loaded(b"\x7fELF\x02\x01"), loaded(b"#!")), (vec![], vec![]));
        assert_eq!(image.address(u64::MAX), None);
    }
}
