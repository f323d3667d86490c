//! `penstock-loadgen chart`, and `--svg` of a run: reads runs, writes a picture of each kind of work.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use penstock_loadgen::chart::{self, Figure, Named, RUNS_MAX, ReadError};

use crate::cli::ChartArgs;

/// A file of --json is a few hundred kilobytes.
const FILE_LEN_MAX: u64 = 16 << 20;

/// Why there are no charts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    /// A file or directory.
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    /// A file that is no run.
    #[error("{} is no run: {error}", path.display())]
    Read { path: PathBuf, error: ReadError },
    /// More than are told apart.
    #[error("{0} runs are too many for a chart: at most {RUNS_MAX}")]
    TooMany(usize),
}

pub(crate) struct Run {
    name: String,
    figures: Vec<Figure>,
}

pub(crate) fn run(args: &ChartArgs) -> ExitCode {
    let files: Vec<PathBuf> = args.run.iter().chain(&args.compare).cloned().collect();
    let drawn = load(&files).and_then(|runs| draw(&runs, &args.svg));
    match drawn {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock-loadgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads the runs that another one is to be drawn beside.
pub(crate) fn load_earlier(files: &[PathBuf]) -> Result<Vec<Run>, ChartError> {
    if files.len() >= RUNS_MAX {
        return Err(ChartError::TooMany(files.len() + 1));
    }
    load(files)
}

/// Draws a run that has just ended beside earlier ones.
pub(crate) fn draw_run(figures: Vec<Figure>, earlier: Vec<Run>, directory: &Path) -> Result<(), ChartError> {
    let mut runs = vec![Run { name: "this run".to_owned(), figures }];
    runs.extend(earlier);
    draw(&runs, directory)
}

/// Reads runs, which are called by their files' names, or by the whole paths where these are alike.
fn load(files: &[PathBuf]) -> Result<Vec<Run>, ChartError> {
    let stem = |path: &Path| path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let name = |path: &PathBuf| {
        let is_one_of_many = files.iter().filter(|other| stem(other) == stem(path)).count() > 1;
        if is_one_of_many { path.to_string_lossy().into_owned() } else { stem(path) }
    };
    files
        .iter()
        .map(|path| {
            let failed = |error| ChartError::Io { path: path.clone(), error };
            if fs::metadata(path).map_err(failed)?.len() > FILE_LEN_MAX {
                return Err(failed(io::Error::other("it is far longer than a run")));
            }
            let text = fs::read_to_string(path).map_err(failed)?;
            let figures =
                chart::read(&text).map_err(|error| ChartError::Read { path: path.clone(), error })?;
            Ok(Run { name: name(path), figures })
        })
        .collect()
}

fn draw(runs: &[Run], directory: &Path) -> Result<(), ChartError> {
    if runs.len() > RUNS_MAX {
        return Err(ChartError::TooMany(runs.len()));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| ChartError::Io { path, error }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    let mut kinds: Vec<&str> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        if !kinds.contains(&figure.kind.as_str()) {
            kinds.push(&figure.kind);
        }
    }
    for kind in kinds {
        let of = |run: &'_ Run| run.figures.iter().position(|figure| figure.kind == kind);
        let named: Vec<Named<'_>> = runs
            .iter()
            .filter_map(|run| Some(Named { name: &run.name, figure: &run.figures[of(run)?] }))
            .collect();
        for (what, picture) in [("latency", chart::latency(&named)), ("over-time", chart::over_time(&named))]
        {
            let path = directory.join(format!("{}-{what}.svg", file_name(kind)));
            fs::write(&path, picture).map_err(failed(&path))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// A kind comes from a file: what is no letter, digit or hyphen has no place in a path.
fn file_name(kind: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    kind.chars().take(64).map(plain).collect()
}
