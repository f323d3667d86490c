//! Counts the instructions of each hot path under callgrind and fails where they are 5 % above the baseline.
//!
//! `cargo bench -p penstock-perf --bench instructions`; needs valgrind. Behind `--`: `--renew` writes the baseline,
//! `--only CASE` runs one, `--keep DIR` leaves callgrind's files there (`callgrind_annotate` shows where instructions went).
//!
//! Before it judges, it makes sure that it can: the same case twice must give the same count, and a case that does one
//! request in ten twice must fail.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use penstock_perf::instructions::{
    Counts, Finding, NOISE_MAX, Run, SLOWER_MAX, Verdict, change, judge, per_request, read_baseline,
    total_of, write_baseline,
};

mod cases;

/// The cheapest case, for the checks of the gate itself.
const CHECKED: &str = "decode_produce_1_partition";
/// So that the C library does not choose by processor how it copies memory. What it does not know it ignores.
const SAME_LIBRARY: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX2_Usable,-AVX,-ERMS,-FSRM,-Prefer_ERMS";
const RENEW: &str = "cargo bench -p penstock-perf --bench instructions -- --renew, and say in the commit what made the difference";

/// How a case is run inside valgrind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Plain,
    /// One request in ten is made twice.
    Planted,
}

#[derive(Debug, Default)]
struct Options {
    renew: bool,
    only: Option<String>,
    keep: Option<PathBuf>,
    /// Inside valgrind: the case, how often, and in which manner.
    inside: Option<(String, u64, Manner)>,
}

fn main() -> ExitCode {
    let done = options(std::env::args().skip(1)).and_then(|options| match &options.inside {
        Some((case, requests, manner)) => run_inside(case, *requests, *manner),
        None => gate(&options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut args: impl Iterator<Item = String>) -> io::Result<Options> {
    let mut options = Options::default();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| io::Error::other(format!("{arg} needs a value")));
        match arg.as_str() {
            // What `cargo bench` adds by itself.
            "--bench" => {}
            "--renew" => options.renew = true,
            "--only" => options.only = Some(value()?),
            "--keep" => options.keep = Some(PathBuf::from(value()?)),
            "--inside" => {
                let (case, requests, manner) = (value()?, value()?, value()?);
                let requests = requests.parse().map_err(io::Error::other)?;
                let manner = if manner == "planted" { Manner::Planted } else { Manner::Plain };
                options.inside = Some((case, requests, manner));
            }
            _ => return Err(io::Error::other(format!("`{arg}` is none of --renew, --only, --keep"))),
        }
    }
    Ok(options)
}

fn run_inside(name: &str, requests: u64, manner: Manner) -> io::Result<()> {
    let case = cases::ALL.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| io::Error::other(format!("there is no case {name}")))?;
    let requests = if manner == Manner::Planted { requests + requests / 10 } else { requests };
    (case.run)(requests);
    Ok(())
}

fn gate(options: &Options) -> io::Result<()> {
    let found_valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if !found_valgrind.is_ok_and(|status| status.success()) {
        return Err(io::Error::other("valgrind is needed; install it"));
    }
    let counter = Counter::new(options.keep.clone())?;
    let mut found = Counts::new();
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    for case in cases::ALL.iter().filter(|case| wanted(case.name)) {
        found.insert(case.name.to_owned(), counter.count(case.name, case.requests, Manner::Plain)?);
    }
    let file = baseline_file();
    if options.renew {
        let all = match options.only {
            None => found,
            Some(_) => read(&file)?.into_iter().chain(found).collect(),
        };
        fs::write(&file, write_baseline(&all))?;
        println!("wrote {}", file.display());
        return Ok(());
    }
    let mut baseline = read(&file)?;
    baseline.retain(|name, _| wanted(name));
    let findings = judge(&baseline, &found);
    show(&findings);
    if options.only.is_none() {
        check_the_gate(&counter, &found)?;
    }
    match findings.iter().filter(|finding| finding.verdict.fails()).count() {
        0 => Ok(()),
        failed => Err(io::Error::other(format!(
            "{failed} of {} cases are not within {:.0} % above {}. If that is meant: {RENEW}",
            findings.len(),
            SLOWER_MAX * 100.0,
            file.display()
        ))),
    }
}

/// Counts again what was counted, and counts what must fail.
fn check_the_gate(counter: &Counter, found: &Counts) -> io::Result<()> {
    let Some((case, before)) = cases::ALL.iter().find(|case| case.name == CHECKED).zip(found.get(CHECKED))
    else {
        return Err(io::Error::other("the case that checks the gate was not run"));
    };
    let again = counter.count(case.name, case.requests, Manner::Plain)?;
    if change(*before, again).abs() > NOISE_MAX {
        return Err(io::Error::other(format!(
            "{CHECKED} takes {before:.0} instructions, and then {again:.0}"
        )));
    }
    let planted = counter.count(case.name, case.requests, Manner::Planted)?;
    let before = Counts::from([(CHECKED.to_owned(), *before)]);
    let judged = judge(&before, &Counts::from([(CHECKED.to_owned(), planted)]));
    match judged.first().map(|finding| finding.verdict) {
        Some(Verdict::Slower) => Ok(()),
        _ => Err(io::Error::other(format!("a tenth more of {CHECKED} was not found: {judged:?}"))),
    }
}

fn show(findings: &[Finding]) {
    println!("{:<36} {:>12} {:>12} {:>8}", "instructions per request", "baseline", "now", "");
    for finding in findings {
        let number = |count: Option<f64>| count.map_or("-".to_owned(), |count| format!("{count:.0}"));
        let percent = finding.baseline.zip(finding.found).map(|(from, to)| change(from, to) * 100.0);
        println!(
            "{:<36} {:>12} {:>12} {:>8} {}",
            finding.name,
            number(finding.baseline),
            number(finding.found),
            percent.map_or(String::new(), |percent| format!("{percent:+.2} %")),
            match finding.verdict {
                Verdict::Same => "",
                Verdict::Faster => "faster: worth a new baseline",
                Verdict::Slower => "SLOWER",
                Verdict::New => "NEW: has no baseline",
                Verdict::Gone => "GONE: the baseline knows it still",
            }
        );
    }
}

/// Counts depend on the processor's instructions: a baseline for each architecture.
fn baseline_file() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("baselines");
    directory.join(format!("{}.json", std::env::consts::ARCH))
}

fn read(file: &Path) -> io::Result<Counts> {
    let refuse = |error: String| io::Error::other(format!("{}: {error}; renew it: {RENEW}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
    read_baseline(&text).map_err(refuse)
}

/// Runs cases of this very program under callgrind.
struct Counter {
    program: PathBuf,
    directory: PathBuf,
    keep: bool,
}

impl Counter {
    fn new(keep: Option<PathBuf>) -> io::Result<Counter> {
        let own = || std::env::temp_dir().join(format!("penstock-instructions-{}", std::process::id()));
        let counter = Counter {
            program: std::env::current_exe()?,
            keep: keep.is_some(),
            directory: keep.unwrap_or_else(own),
        };
        fs::create_dir_all(&counter.directory)?;
        Ok(counter)
    }

    /// Instructions of one request.
    fn count(&self, case: &str, requests: u64, manner: Manner) -> io::Result<f64> {
        let few = self.run(case, requests / 10, manner)?;
        let many = self.run(case, requests, manner)?;
        per_request(few, many).ok_or_else(|| io::Error::other(format!("{case}: {few:?} and {many:?}")))
    }

    fn run(&self, case: &str, requests: u64, manner: Manner) -> io::Result<Run> {
        let file = self.directory.join(format!("{case}-{requests}.callgrind"));
        let manner = if manner == Manner::Planted { "planted" } else { "plain" };
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(&self.program)
            .args(["--inside", case, &requests.to_string(), manner])
            .env("GLIBC_TUNABLES", SAME_LIBRARY)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("{case}: {}: {told}", output.status)));
        }
        let total = total_of(&fs::read_to_string(&file)?);
        if !self.keep {
            fs::remove_file(&file)?;
        }
        let instructions =
            total.ok_or_else(|| io::Error::other(format!("{case}: callgrind gave no total")))?;
        Ok(Run { requests, instructions })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
