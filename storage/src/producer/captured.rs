//! Producers as a checkpoint under way has still to encode them.
//!
//! To encode those of all logs at once would hold up the shard: for 100 ms where there are 100,000. So a checkpoint encodes
//! them log by log behind its beginning, and those of a log that are about to change are encoded before they do.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use super::Producer;
use super::snapshot::encode;

/// Producers by id. Whoever gets at them for a change has what a checkpoint needs of them kept first.
#[derive(Debug, Clone, Default)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    capture: Option<Capture>,
}

#[derive(Debug, Clone)]
enum Capture {
    /// They have not changed since; with the offset where the log ended.
    Due { end_offset: i64 },
    /// Encoded as they were.
    Kept(Vec<u8>),
}

impl Producers {
    /// Has them encoded as they are now, whenever [`Producers::end_capture`] asks. One capture at a time: another one
    /// takes the place of one that was given up.
    pub(super) fn begin_capture(&mut self, end_offset: i64) {
        self.capture = Some(Capture::Due { end_offset });
    }

    /// The snapshot as of the beginning of the capture; empty if there was none, or no producer.
    pub(super) fn end_capture(&mut self) -> Vec<u8> {
        self.keep();
        match self.capture.take() {
            Some(Capture::Kept(bytes)) => bytes,
            _ => Vec::new(),
        }
    }

    /// Puts others in their place, which counts as a change.
    pub(super) fn replace(&mut self, others: Producers) {
        self.keep();
        self.by_id = others.by_id;
    }

    fn keep(&mut self) {
        if let Some(Capture::Due { end_offset }) = self.capture {
            let some = !self.by_id.is_empty();
            self.capture =
                Some(Capture::Kept(if some { encode(&self.by_id, end_offset) } else { Vec::new() }));
        }
    }
}

impl From<BTreeMap<i64, Producer>> for Producers {
    fn from(by_id: BTreeMap<i64, Producer>) -> Producers {
        Producers { by_id, capture: None }
    }
}

impl PartialEq for Producers {
    /// Whether the producers are the same, whatever is being captured of them.
    fn eq(&self, other: &Producers) -> bool {
        self.by_id == other.by_id
    }
}

impl Eq for Producers {}

impl Deref for Producers {
    type Target = BTreeMap<i64, Producer>;

    fn deref(&self) -> &BTreeMap<i64, Producer> {
        &self.by_id
    }
}

impl DerefMut for Producers {
    fn deref_mut(&mut self) -> &mut BTreeMap<i64, Producer> {
        self.keep();
        &mut self.by_id
    }
}
