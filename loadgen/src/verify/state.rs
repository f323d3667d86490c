//! What was acknowledged, in memory and in a state file that outlives the verifier.
//!
//! The file is text, one fact a line, only ever appended to; a last line without its end is dropped:
//! ```text
//! penstock-verify 1
//! run <run id, hex> <partitions> <record size> <exactly|at-least> <topic>
//! ack <partition> <first sequence> <last sequence> <offset of the first, or -1>
//! ```
//! `ack` lines belong to the `run` line above them. A file may hold several runs on one topic.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;

use super::ranges::RangeSet;

const MAGIC: &str = "penstock-verify 1";

/// How often an acknowledged record may be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Idempotent producer: once, in order.
    Exactly,
    /// Retries may write it again.
    AtLeast,
}

/// One run of the producing half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Tells its records from those of other runs.
    pub run_id: u64,
    /// Partitions of the topic when it ran.
    pub partitions: i32,
    /// Largest value.
    pub record_size: usize,
    /// What it promises.
    pub delivery: Delivery,
    /// The topic.
    pub topic: String,
    /// What was acknowledged, by partition.
    pub acked: BTreeMap<i32, Acked>,
}

/// What was acknowledged of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acked {
    /// The sequences.
    pub sequences: RangeSet,
    /// Where the broker said they are: (first sequence, last sequence, offset of the first), neighbours joined.
    pub offsets: Vec<(u64, u64, i64)>,
}

impl Acked {
    /// Adds an acknowledged batch; `base_offset` negative when the broker did not say (a duplicate that it dropped).
    pub fn add(&mut self, first: u64, last: u64, base_offset: i64) {
        self.sequences.insert(first, last);
        if base_offset < 0 {
            return;
        }
        if let Some(end) = self.offsets.last_mut()
            && end.1 + 1 == first
            && end.2 + (first - end.0) as i64 == base_offset
        {
            end.1 = last;
            return;
        }
        self.offsets.push((first, last, base_offset));
    }
}

impl Run {
    /// A run of which nothing is acknowledged.
    pub fn new(run_id: u64, topic: &str, partitions: i32, record_size: usize, delivery: Delivery) -> Run {
        Run { run_id, partitions, record_size, delivery, topic: topic.to_owned(), acked: BTreeMap::new() }
    }

    /// Records acknowledged in all partitions.
    pub fn acked_records(&self) -> u64 {
        self.acked.values().map(|acked| acked.sequences.len()).sum()
    }

    fn header_line(&self) -> String {
        let delivery = match self.delivery {
            Delivery::Exactly => "exactly",
            Delivery::AtLeast => "at-least",
        };
        format!(
            "run {:016x} {} {} {delivery} {}\n",
            self.run_id, self.partitions, self.record_size, self.topic
        )
    }
}

/// Appends to a state file. Each acknowledgement is one write, so nothing that was remembered is lost when the
/// verifier itself is killed; it is not flushed to the disk, for the verifier's host is not what is being crashed.
#[derive(Debug)]
pub struct StateWriter {
    file: File,
}

impl StateWriter {
    /// Opens `path`, new or existing, and begins `run` in it.
    pub fn begin(path: &Path, run: &Run) -> io::Result<StateWriter> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let whole = whole_lines_len(&mut file)?;
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        if whole == 0 {
            file.write_all(format!("{MAGIC}\n").as_bytes())?;
        }
        file.write_all(run.header_line().as_bytes())?;
        Ok(StateWriter { file })
    }

    /// Remembers an acknowledged batch.
    pub fn ack(&mut self, partition: i32, first: u64, last: u64, base_offset: i64) -> io::Result<()> {
        self.file.write_all(format!("ack {partition} {first} {last} {base_offset}\n").as_bytes())
    }
}

/// Length of the file up to its last line end.
fn whole_lines_len(file: &mut File) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut whole, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)? as u64;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(whole);
        }
        whole += read;
    }
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("cannot read the state file: {0}")]
    Io(#[from] io::Error),
    /// It is not a state file, or of another version, or damaged.
    #[error("line {line} of the state file is not understood: `{text}`")]
    Syntax {
        /// From 1.
        line: usize,
        /// Its beginning.
        text: String,
    },
}

/// Reads all runs of a state file.
pub fn read_state(path: &Path) -> Result<Vec<Run>, StateError> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut runs, mut line, mut number) = (Vec::new(), String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        number += 1;
        let Some(text) = line.strip_suffix('\n') else {
            return Ok(runs);
        };
        let understood = if number == 1 { (text == MAGIC).then_some(()) } else { take_line(text, &mut runs) };
        if understood.is_none() {
            return Err(StateError::Syntax { line: number, text: text.chars().take(80).collect() });
        }
    }
}

fn take_line(text: &str, runs: &mut Vec<Run>) -> Option<()> {
    let (kind, rest) = text.split_once(' ')?;
    match kind {
        "run" => {
            let mut fields = rest.splitn(5, ' ');
            let run_id = u64::from_str_radix(fields.next()?, 16).ok()?;
            let partitions = fields.next()?.parse().ok()?;
            let record_size = fields.next()?.parse().ok()?;
            let delivery = match fields.next()? {
                "exactly" => Delivery::Exactly,
                "at-least" => Delivery::AtLeast,
                _ => return None,
            };
            runs.push(Run::new(run_id, fields.next()?, partitions, record_size, delivery));
        }
        "ack" => {
            let mut fields = rest.split(' ');
            let partition = fields.next()?.parse().ok()?;
            let (first, last): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let base_offset = fields.next()?.parse().ok()?;
            if first > last {
                return None;
            }
            runs.last_mut()?.acked.entry(partition).or_default().add(first, last, base_offset);
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_outlives_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut first = Run::new(0xfeed, "a topic", 2, 512, Delivery::Exactly);
        let mut writer = StateWriter::begin(&path, &first).unwrap();
        for (partition, from, to, offset) in [(0, 0, 4, 10), (1, 0, 0, -1), (0, 5, 9, 15), (0, 10, 10, 30)] {
            writer.ack(partition, from, to, offset).unwrap();
            first.acked.entry(partition).or_default().add(from, to, offset);
        }
        // Killed in the middle of a line.
        writer.file.write_all(b"ack 0 11").unwrap();
        drop(writer);
        let second = Run::new(0xbeef, "a topic", 2, 512, Delivery::AtLeast);
        drop(StateWriter::begin(&path, &second).unwrap());
        assert_eq!(first.acked[&0].offsets, [(0, 9, 10), (10, 10, 30)]);
        assert_eq!(first.acked_records(), 12);
        assert_eq!(read_state(&path).unwrap(), [first, second]);
    }

    #[test]
    fn what_is_not_a_state_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for text in
            ["hello\n", "penstock-verify 1\nack 0 0 0 0\n", "penstock-verify 1\nrun x 1 1 exactly t\n"]
        {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(read_state(&path), Err(StateError::Syntax { .. })), "{text}");
        }
    }
}
