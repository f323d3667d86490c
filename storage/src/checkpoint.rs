//! Bytes of a checkpoint: pure encoding and bounded decoding. Layout: `docs/format.md`, "Checkpoint".
//!
//! A checkpoint is the state of every log just before one frame of the journal, the redo frame. Everything it
//! claims is stable in segment files when it is written; recovery is this state plus the frames from there on.
//! A file and its copy ([`crate::checkpoint_file`]), each replaced atomically: after a crash the old or the new, whole.

use crate::bytes_io::{Reader, put_string};
use crate::config::JOURNAL_FILES_MAX;
use crate::cuts::CutRecord;
use crate::spill::RunRecord;

const MAGIC: [u8; 4] = *b"PSCP";
/// Version of the checkpoint format.
pub(crate) const VERSION: u16 = 3;
/// Oldest version that is read: logs were not cleaned then. In version 2 no producers were spilled.
const VERSION_MIN: u16 = 1;
/// Longest checkpoint: far above what the limits of a shard allow. Read by [`crate::disk::Disk::read_small`].
pub(crate) const LEN_MAX: usize = 1 << 30;
const HEADER_LEN: usize = 64;
const LOG_LEN_MIN: usize = 8 + 2 + 8 + 8 + 4 + 4 + 4 + 4;
/// Of version 1; later ones have more.
const SEGMENT_LEN_MIN: usize = 48;
/// Bytes of a segment as it is written now.
pub(crate) const SEGMENT_LEN: usize = 64;
/// The segment was written by the cleaner.
const CLEANED: u64 = 1;
const EPOCH_LEN: usize = 12;
const CUT_LEN: usize = 16;
const RUN_LEN: usize = 24;

/// Where the journal stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Redo {
    /// Run of the store that writes the frames from here on.
    pub run: u64,
    /// First frame not covered by the checkpoint.
    pub seq: u64,
    /// Number of the journal file (since the run began) where that frame begins, or the one before it.
    pub file_number: u64,
    /// Position in that file.
    pub position: u64,
    /// Size of journal files.
    pub file_bytes: u64,
    /// Files in the ring.
    pub file_count: u32,
    /// The store was closed after it: nothing was left behind on disk.
    pub clean: bool,
}

/// A segment as of the redo frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub base: i64,
    pub life: u64,
    /// File position after the last batch.
    pub end: u64,
    /// Largest timestamp of a batch, -1 if none has one.
    pub max_timestamp: i64,
    /// Base offset of the first batch that has it.
    pub max_timestamp_offset: i64,
    /// Largest timestamp of the first batch.
    pub first_timestamp: i64,
    /// Earliest delete horizon of a batch that something goes from when it passes, -1 if there is none.
    pub horizon_ms: i64,
    /// Written by the cleaner.
    pub cleaned: bool,
}

/// A log as of the redo frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRecord {
    pub id: u64,
    pub name: String,
    pub start_offset: i64,
    pub end_offset: i64,
    /// Everything below was cleaned by key.
    pub cleaned_to: i64,
    pub segments: Vec<SegmentRecord>,
    /// Leader epochs with the offsets where they begin.
    pub epochs: Vec<(i32, i64)>,
    /// Snapshot of the producers, in their own format.
    pub producers: Vec<u8>,
    /// Why the log is offline for damage; empty if it is sound.
    pub damage: String,
    /// Cuts that its spilled producers have still to be held against.
    pub cuts: Vec<CutRecord>,
}

/// A decoded checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub redo: Redo,
    pub logs: Vec<LogRecord>,
    /// The runs of spilled producers, oldest first.
    pub runs: Vec<RunRecord>,
}

/// Why a checkpoint cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointError {
    NewerVersion(u16),
    Damaged,
}

/// Collects the logs of a checkpoint.
pub(crate) struct Encoder {
    out: Vec<u8>,
    /// Crc32c of what follows the header.
    crc: u32,
    log_count: u32,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder::with_capacity(0)
    }

    /// One that has room for `bytes` from the beginning.
    pub(crate) fn with_capacity(bytes: usize) -> Encoder {
        let mut out = Vec::with_capacity(HEADER_LEN + bytes);
        out.resize(HEADER_LEN, 0);
        Encoder { out, crc: 0, log_count: 0 }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    pub(crate) fn log(&mut self, log: &LogRecord) {
        let begin = self.out.len();
        let out = &mut self.out;
        out.extend_from_slice(&log.id.to_le_bytes());
        put_string(out, &log.name);
        out.extend_from_slice(&log.start_offset.to_le_bytes());
        out.extend_from_slice(&log.end_offset.to_le_bytes());
        out.extend_from_slice(&log.cleaned_to.to_le_bytes());
        put_count(out, log.segments.len());
        for segment in &log.segments {
            out.extend_from_slice(&segment.base.to_le_bytes());
            out.extend_from_slice(&segment.life.to_le_bytes());
            out.extend_from_slice(&segment.end.to_le_bytes());
            out.extend_from_slice(&segment.max_timestamp.to_le_bytes());
            out.extend_from_slice(&segment.max_timestamp_offset.to_le_bytes());
            out.extend_from_slice(&segment.first_timestamp.to_le_bytes());
            out.extend_from_slice(&segment.horizon_ms.to_le_bytes());
            out.extend_from_slice(&(if segment.cleaned { CLEANED } else { 0 }).to_le_bytes());
        }
        put_count(out, log.epochs.len());
        for (epoch, offset) in &log.epochs {
            out.extend_from_slice(&epoch.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        put_count(out, log.producers.len());
        out.extend_from_slice(&log.producers);
        put_count(out, log.damage.len());
        out.extend_from_slice(log.damage.as_bytes());
        put_count(out, log.cuts.len());
        for cut in &log.cuts {
            out.extend_from_slice(&cut.before.to_le_bytes());
            out.extend_from_slice(&cut.offset.to_le_bytes());
        }
        self.crc = crc32c::crc32c_append(self.crc, &self.out[begin..]);
        self.log_count += 1;
    }

    /// The finished bytes: header, logs, runs of spilled producers, crc32c over all.
    pub(crate) fn finish(mut self, redo: &Redo, runs: &[RunRecord]) -> Vec<u8> {
        let begin = self.out.len();
        put_count(&mut self.out, runs.len());
        for run in runs {
            for field in [run.number, run.len, run.producers] {
                self.out.extend_from_slice(&field.to_le_bytes());
            }
        }
        self.crc = crc32c::crc32c_append(self.crc, &self.out[begin..]);
        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&u16::from(redo.clean).to_le_bytes());
        for field in [redo.run, redo.seq, redo.file_number, redo.position, redo.file_bytes] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        header.extend_from_slice(&redo.file_count.to_le_bytes());
        header.extend_from_slice(&self.log_count.to_le_bytes());
        header.resize(HEADER_LEN, 0);
        self.out[..HEADER_LEN].copy_from_slice(&header);
        let rest_len = self.out.len() - HEADER_LEN;
        let crc = crc32c::crc32c_combine(crc32c::crc32c(&header), self.crc, rest_len);
        self.out.extend_from_slice(&crc.to_le_bytes());
        self.out
    }
}

/// The pair of the bound on reading: what is longer could be written and never be read again.
pub(crate) fn check_len(bytes: &[u8]) -> std::io::Result<()> {
    if bytes.len() <= LEN_MAX {
        return Ok(());
    }
    let what = format!("{} bytes are more than a checkpoint may have ({LEN_MAX})", bytes.len());
    Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("counts in a checkpoint are far below 2^32");
    out.extend_from_slice(&count.to_le_bytes());
}

/// Reads a checkpoint file.
pub(crate) fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let version = bytes.get(4..6).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if bytes.starts_with(&MAGIC)
        && let Some(version) = version
        && version > VERSION
    {
        return Err(CheckpointError::NewerVersion(version));
    }
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(CheckpointError::Damaged);
    };
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(CheckpointError::Damaged);
    }
    read(content).ok_or(CheckpointError::Damaged)
}

fn read(content: &[u8]) -> Option<Checkpoint> {
    let mut header = Reader::new(content.get(..HEADER_LEN)?);
    if header.bytes(4)? != MAGIC {
        return None;
    }
    let version = header.u16().filter(|version| (VERSION_MIN..=VERSION).contains(version))?;
    let clean = header.u16()? & 1 != 0;
    let redo = Redo {
        run: header.u64()?,
        seq: header.u64()?,
        file_number: header.u64()?,
        position: header.u64()?,
        file_bytes: header.u64()?,
        file_count: header.u32()?,
        clean,
    };
    if redo.file_count > JOURNAL_FILES_MAX {
        return None;
    }
    let log_count = header.u32()? as usize;
    let mut reader = Reader::new(&content[HEADER_LEN..]);
    if log_count.checked_mul(LOG_LEN_MIN)? > reader.remaining() {
        return None;
    }
    let logs = (0..log_count).map(|_| read_log(&mut reader, version)).collect::<Option<Vec<_>>>()?;
    let run_count = if version > 2 { reader.count(RUN_LEN)? } else { 0 };
    let runs = (0..run_count).map(|_| read_run(&mut reader)).collect::<Option<Vec<_>>>()?;
    (reader.remaining() == 0).then_some(Checkpoint { redo, logs, runs })
}

fn read_run(reader: &mut Reader<'_>) -> Option<RunRecord> {
    Some(RunRecord { number: reader.u64()?, len: reader.u64()?, producers: reader.u64()? })
}

fn read_log(reader: &mut Reader<'_>, version: u16) -> Option<LogRecord> {
    let id = reader.u64()?;
    let name = reader.string().filter(|name| crate::store::is_valid_name(name))?.to_owned();
    let (start_offset, end_offset) = (reader.i64()?, reader.i64()?);
    let cleaned_to = if version > 1 { reader.i64()? } else { 0 };
    let segment_count = reader.count(SEGMENT_LEN_MIN)?;
    let segments = (0..segment_count).map(|_| read_segment(reader, version)).collect::<Option<Vec<_>>>()?;
    let epoch_count = reader.count(EPOCH_LEN)?;
    let epochs =
        (0..epoch_count).map(|_| Some((reader.i32()?, reader.i64()?))).collect::<Option<Vec<_>>>()?;
    let producers_len = reader.count(1)?;
    let producers = reader.bytes(producers_len)?.to_vec();
    let damage_len = reader.count(1)?;
    let damage = String::from_utf8(reader.bytes(damage_len)?.to_vec()).ok()?;
    let cut_count = if version > 2 { reader.count(CUT_LEN)? } else { 0 };
    let cut = |_| Some(CutRecord { before: reader.u64()?, offset: reader.i64()? });
    let cuts = (0..cut_count).map(cut).collect::<Option<Vec<_>>>()?;
    Some(LogRecord {
        id,
        name,
        start_offset,
        end_offset,
        cleaned_to,
        segments,
        epochs,
        producers,
        damage,
        cuts,
    })
}

fn read_segment(reader: &mut Reader<'_>, version: u16) -> Option<SegmentRecord> {
    let mut segment = SegmentRecord {
        base: reader.i64()?,
        life: reader.u64()?,
        end: reader.u64()?,
        max_timestamp: reader.i64()?,
        max_timestamp_offset: reader.i64()?,
        first_timestamp: reader.i64()?,
        horizon_ms: -1,
        cleaned: false,
    };
    if version > 1 {
        segment.horizon_ms = reader.i64()?;
        segment.cleaned = reader.u64()? & CLEANED != 0;
    }
    Some(segment)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> (Redo, LogRecord) {
        let redo = Redo {
            run: 7,
            seq: 9,
            file_number: 3,
            position: 8192,
            file_bytes: 65536,
            file_count: 2,
            clean: true,
        };
        let segment = SegmentRecord {
            base: 5,
            life: 11,
            end: 5000,
            max_timestamp: 77,
            max_timestamp_offset: 6,
            first_timestamp: 70,
            horizon_ms: 99,
            cleaned: true,
        };
        let log = LogRecord {
            id: 1,
            name: "a-0".into(),
            start_offset: 5,
            end_offset: 8,
            cleaned_to: 6,
            segments: vec![segment],
            epochs: vec![(2, 5)],
            producers: vec![1, 2, 3],
            damage: "lost".into(),
            cuts: vec![CutRecord { before: 12, offset: 4 }, CutRecord { before: 15, offset: 7 }],
        };
        (redo, log)
    }

    fn runs() -> Vec<RunRecord> {
        vec![
            RunRecord { number: 14, len: 8192, producers: 40 },
            RunRecord { number: 16, len: 4096, producers: 3 },
        ]
    }

    /// As the log is read from version 2.
    pub(crate) fn in_version_2(mut log: LogRecord) -> LogRecord {
        log.cuts.clear();
        log
    }

    /// As the log is read from version 1.
    pub(crate) fn in_version_1(log: LogRecord) -> LogRecord {
        let mut log = in_version_2(log);
        log.cleaned_to = 0;
        (log.segments[0].horizon_ms, log.segments[0].cleaned) = (-1, false);
        log
    }

    pub(crate) fn from_hex(hex: &str) -> Vec<u8> {
        let hex = hex.split_whitespace().collect::<String>();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// The checkpoint as version 1 has it, which knows no cleaning and no spilled producers.
    pub(crate) fn as_version_1(checkpoint: &Checkpoint) -> Vec<u8> {
        let mut encoder = Encoder::new();
        for log in &checkpoint.logs {
            assert!(log.cleaned_to == 0 && log.segments.iter().all(|segment| !segment.cleaned));
            assert!(log.cuts.is_empty() && checkpoint.runs.is_empty());
            let mut alone = Encoder::new();
            alone.log(log);
            let (head, rest) = alone.out[HEADER_LEN..].split_at(26 + log.name.len());
            let (segments, rest) = rest[8..].split_at(4 + 64 * log.segments.len());
            let out = &mut encoder.out;
            out.extend_from_slice(head);
            out.extend_from_slice(&segments[..4]);
            segments[4..].chunks(64).for_each(|segment| out.extend_from_slice(&segment[..48]));
            out.extend_from_slice(&rest[..rest.len() - 4]);
            encoder.log_count += 1;
        }
        let mut bytes = encoder.finish(&checkpoint.redo, &[]);
        bytes.truncate(bytes.len() - 8);
        bytes[4..6].copy_from_slice(&1_u16.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn encoded() -> Vec<u8> {
        let (redo, log) = sample();
        let mut encoder = Encoder::new();
        encoder.log(&log);
        encoder.finish(&redo, &runs())
    }

    #[test]
    fn golden_bytes() {
        let (redo, log) = sample();
        assert_eq!(encoded(), from_hex(include_str!("../tests/golden/checkpoint-v3.hex")));
        assert_eq!(decode(&encoded()), Ok(Checkpoint { redo, logs: vec![log], runs: runs() }));
    }

    #[test]
    fn earlier_versions_are_read() {
        let (redo, log) = sample();
        let of = |log| Checkpoint { redo, logs: vec![log], runs: Vec::new() };
        let golden = from_hex(include_str!("../tests/golden/checkpoint-v2.hex"));
        assert_eq!(decode(&golden), Ok(of(in_version_2(log.clone()))));
        let golden = from_hex(include_str!("../tests/golden/checkpoint-v1.hex"));
        let checkpoint = of(in_version_1(log));
        assert_eq!(as_version_1(&checkpoint), golden);
        assert_eq!(decode(&golden), Ok(checkpoint));
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let mut bytes = vec![0; LEN_MAX];
        assert!(check_len(&bytes).is_ok());
        bytes.push(0);
        assert!(check_len(&bytes).is_err());
    }

    #[test]
    fn any_change_is_noticed() {
        let bytes = encoded();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "length {at}");
        }
        let mut newer = bytes;
        newer[4] = 4;
        assert_eq!(decode(&newer), Err(CheckpointError::NewerVersion(4)));
    }
}
