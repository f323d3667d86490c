//! Applies the journal's frames to the logs of a checkpoint, in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Files;
use super::check::Finding;
use super::journal::{Chain, Found, Lost, Ring};
use super::segment::{BatchFault, Piece, cut, read_overlaid, uncut};
use super::store::{OfflineLog, OfflineSegment, OfflineStore, OpenFault};
use crate::frame::{AppendEntry, Entry};
use crate::segment::{DATA_START, file_name};
use crate::state::logs_dir;

/// Applies frames to logs.
pub(super) struct Replay<'a, F: Files> {
    pub files: &'a F,
    pub dir: &'a Path,
    pub chain: &'a Chain,
    pub logs: BTreeMap<u64, OfflineLog>,
    pub findings: Vec<Finding>,
}

impl<F: Files> Replay<'_, F> {
    /// Applies the first `count` frames. Gives the index of one that is not whole and that nobody was told of: it and
    /// all behind it never were.
    pub(super) fn frames(&mut self, ring: &Ring<'_, F>, count: usize) -> Result<Option<usize>, OpenFault> {
        let frames = &self.chain.frames[..count];
        let entries = || frames.iter().flat_map(|found| &found.entries);
        let removed: BTreeSet<u64> = entries()
            .filter_map(|entry| if let Entry::Remove { log_id } = entry { Some(*log_id) } else { None })
            .collect();
        let starts: BTreeMap<u64, i64> = entries()
            .filter_map(|entry| match entry {
                Entry::StartOffset { log_id, offset } => Some((*log_id, *offset)),
                _ => None,
            })
            .collect();
        for (index, found) in frames.iter().enumerate() {
            let frame = ring.frame(found)?;
            self.create(found);
            for entry in &found.entries {
                let Entry::Append(append) = entry else { continue };
                if removed.contains(&append.log_id) {
                    continue;
                }
                let known_stable = found.header.seq <= self.chain.durable_seq;
                let place = (ring.path(found.cursor.number), found.cursor.position);
                let Err(reason) = self.append(append, &frame, &place)? else { continue };
                if !known_stable {
                    return Ok(Some(index));
                }
                let deleted = starts.get(&append.log_id).is_some_and(|start| append.next_offset <= *start);
                let frame = format!(
                    "journal frame {} ({}, position {})",
                    found.header.seq,
                    place.0.display(),
                    place.1
                );
                self.damaged(append, deleted, &format!("{frame}: {reason}"));
            }
            self.change(found);
        }
        Ok(None)
    }

    /// Creates logs, so that appends of the same frame find them.
    fn create(&mut self, found: &Found) {
        for entry in &found.entries {
            if let Entry::Create { log_id, name } = entry {
                let log = OfflineLog {
                    id: *log_id,
                    name: name.clone(),
                    start_offset: 0,
                    end_offset: 0,
                    segments: Vec::new(),
                    record: None,
                    broken: false,
                };
                self.logs.insert(*log_id, log);
            }
        }
    }

    fn change(&mut self, found: &Found) {
        for entry in &found.entries {
            match entry {
                Entry::Remove { log_id } => {
                    self.logs.remove(log_id);
                }
                Entry::StartOffset { log_id, offset } => {
                    if let Some(log) = self.logs.get_mut(log_id) {
                        log.start_offset = *offset;
                    }
                }
                Entry::Append(_) | Entry::Create { .. } => {}
            }
        }
    }

    /// Applies an append whose bytes are right. The inner error says what is wrong with them; then nothing changed.
    fn append(
        &mut self,
        append: &AppendEntry,
        frame: &Bytes,
        place: &(PathBuf, u64),
    ) -> Result<Result<(), String>, OpenFault> {
        let Some(log) = self.logs.get_mut(&append.log_id) else {
            return Ok(Err(format!("there is no log with id {}", append.log_id)));
        };
        if log.broken {
            return Ok(Ok(()));
        }
        let goes_on = match log.segments.last() {
            Some(last) if last.base == append.segment_base => {
                last.end == append.position && last.life == append.life
            }
            Some(last) => last.base < append.segment_base && append.position == DATA_START,
            None => append.position == DATA_START,
        };
        if !goes_on || append.first_offset < log.end_offset {
            return Ok(Err(format!("it does not continue the log at offset {}", log.end_offset)));
        }
        let is_new = log.segments.last().is_none_or(|last| last.base != append.segment_base);
        if is_new {
            let path = logs_dir(self.dir).join(&log.name).join(file_name(append.segment_base, None));
            log.segments.push(OfflineSegment::new(append, path));
        }
        let Some(segment) = log.segments.last_mut() else { unreachable!("there is one now") };
        let applied = apply(self.files, segment, append, (frame, place))?;
        match applied {
            Ok(()) => log.end_offset = append.next_offset,
            Err(_) if is_new => drop(log.segments.pop()),
            Err(_) => {}
        }
        Ok(applied)
    }

    fn damaged(&mut self, append: &AppendEntry, deleted: bool, reason: &str) {
        let (mut name, mut file) = (None, None);
        if let Some(log) = self.logs.get_mut(&append.log_id) {
            let known = log.segments.iter().find(|segment| segment.base == append.segment_base);
            let path = known.map_or_else(
                || logs_dir(self.dir).join(&log.name).join(file_name(append.segment_base, None)),
                |known| known.path.clone(),
            );
            // Nobody misses records that were deleted since, and the log goes on behind them.
            if deleted {
                log.end_offset = append.next_offset;
                log.segments.retain(|segment| segment.base != append.segment_base);
                let end = append.end();
                log.segments.push(OfflineSegment {
                    end,
                    needs_file: true,
                    ..OfflineSegment::new(append, path)
                });
                return;
            }
            log.broken = true;
            (name, file) = (Some(log.name.clone()), Some(path));
        }
        self.findings.push(Finding {
            log: name,
            offset: Some(append.first_offset),
            segment: Some(append.segment_base),
            file,
            position: Some(append.position),
            what: format!(
                "acknowledged offsets {} to {} are damaged: {reason}",
                append.first_offset,
                append.next_offset - 1,
            ),
        });
    }

    pub(super) fn finish(mut self, chain: &Chain, whole: usize, torn: Option<u64>) -> OfflineStore {
        if let Some(Lost { seq, witness, file, position }) = &chain.lost {
            self.findings.push(Finding {
                file: Some(file.clone()),
                position: Some(*position),
                ..Finding::new(format!(
                    "journal frame {seq} is damaged or missing although it was stable (frame {witness} says so)"
                ))
            });
        }
        for log in self.logs.values_mut() {
            log.drop_deleted();
        }
        let runs = Vec::new();
        OfflineStore { logs: self.logs, runs, frames: whole as u64, torn, findings: self.findings }
    }
}

/// Puts the bytes of an append in its segment and checks them; if they are wrong, the segment stays as it was.
fn apply(
    files: &impl Files,
    segment: &mut OfflineSegment,
    append: &AppendEntry,
    (frame, place): (&Bytes, &(PathBuf, u64)),
) -> Result<Result<(), String>, OpenFault> {
    let inline_end = u64::from(append.inline_at) + append.inline_len();
    if (frame.len() as u64) < inline_end {
        return Ok(Err("the frame is cut short".to_owned()));
    }
    let prefix_from = append.position - u64::from(append.prefix_len);
    let prefix = frame.slice(append.inline_at as usize..(append.inline_at + append.prefix_len) as usize);
    if crc32c::crc32c(&prefix) != append.prefix_crc {
        return Ok(Err("repeated bytes of the block do not match their crc".to_owned()));
    }
    // The direct range may take in the end of what was there before: those bytes must not have changed.
    let seam = append.direct_from..if append.direct_len > 0 { append.position } else { 0 };
    let before = seam_bytes(files, segment, &seam)?;
    let direct_from = if append.direct_len > 0 { append.direct_from } else { u64::MAX };
    let undo = cut(&mut segment.pieces, prefix_from.min(direct_from));
    let (had_file, had_end) = (segment.needs_file, segment.end);
    segment.needs_file |= append.direct_len > 0;
    segment.end = append.end();
    push_pieces(segment, append, place);
    let mut applied = Ok(());
    if before != seam_bytes(files, segment, &seam)? {
        applied = Err("bytes before it in its first block are not as they were".to_owned());
    }
    if applied.is_ok() {
        applied = verify(files, segment, append)?;
    }
    if applied.is_err() {
        uncut(&mut segment.pieces, undo);
        (segment.needs_file, segment.end) = (had_file, had_end);
    }
    Ok(applied)
}

fn seam_bytes(
    files: &impl Files,
    segment: &OfflineSegment,
    seam: &Range<u64>,
) -> Result<Option<Bytes>, OpenFault> {
    if seam.is_empty() {
        return Ok(None);
    }
    match read_overlaid(files, &segment.path, &segment.pieces, seam.clone()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(OpenFault::io(&segment.path)),
    }
}

/// Notes where the inline bytes of an append are.
fn push_pieces(segment: &mut OfflineSegment, append: &AppendEntry, (journal, at): &(PathBuf, u64)) {
    let mut journal_position = at + u64::from(append.inline_at);
    let prefix = append.position - u64::from(append.prefix_len)..append.position;
    for range in [prefix, append.head(), append.tail()] {
        let len = range.end - range.start;
        if len > 0 {
            let journal = journal.clone();
            segment.pieces.push(Piece { from: range.start, len, journal, journal_position });
            journal_position += len;
        }
    }
}

/// Checks that the bytes are the batches that the entry names.
fn verify(
    files: &impl Files,
    segment: &OfflineSegment,
    append: &AppendEntry,
) -> Result<Result<(), String>, OpenFault> {
    let mut digest = 0;
    let mut count = 0u64;
    let mut first = None;
    let mut next_offset = append.first_offset;
    for batch in segment.batches_in(files, append.position, append.end()) {
        let view = match batch {
            Err(BatchFault::Io { error, .. }) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenFault::io(&segment.path)(error));
            }
            Err(fault) => return Ok(Err(fault.to_string())),
            Ok(view) => view,
        };
        let header = view.batch.header;
        if !view.crc_ok {
            return Ok(Err(format!("position {}: the batch does not match its crc", view.position)));
        }
        if header.base_offset < next_offset {
            return Ok(Err(format!("position {}: offset {} goes back", view.position, header.base_offset)));
        }
        digest = crc32c::crc32c_append(digest, &header.to_array());
        count += 1;
        first = first.or(Some(header.base_offset));
        next_offset = header.next_offset();
    }
    let named = (append.digest, u64::from(append.batch_count), Some(append.first_offset), append.next_offset);
    if (digest, count, first, next_offset) != named {
        return Ok(Err("its batches are not those of the journal's entry".to_owned()));
    }
    Ok(Ok(()))
}
