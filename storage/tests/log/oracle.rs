//! Judges a store against the twins of its logs: what was acknowledged is there, byte for byte, and nothing else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use penstock_storage::disk::sim::SimDisk;
use penstock_storage::{Log, ReadError, Store};

use crate::twin::{State, Twin, Written};

/// A promise that was broken, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// Why a check gave no verdict.
#[derive(Debug)]
pub(crate) enum Unjudged {
    Broken(Violation),
    /// The disk failed, as a test had it do.
    DiskFailed,
}

/// One log as the oracle knows it.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) twin: Twin,
    /// Handle of this life, absent while the log does not exist.
    pub(crate) log: Option<Log<SimDisk>>,
    /// Largest log start seen or asked for: retention moves it without being asked.
    pub(crate) start_max: i64,
}

/// All logs of a store, and the first promise found broken.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) logs: BTreeMap<String, Known>,
    pub(crate) violation: Option<Violation>,
    /// Whether this life's disk has faults, so that errors are no violation.
    pub(crate) faulty: bool,
    /// Whether this life's disk gets full, so that appends may be refused and the store may not open, and no more.
    pub(crate) full: bool,
    /// Whether a disk has refused something that may be of the files of producers: then those taken there may be forgotten.
    pub(crate) forgets: bool,
    /// The only log that may fail in this life, if one is named.
    pub(crate) alone: Option<String>,
}

pub(crate) type OracleRef = Rc<RefCell<Oracle>>;

impl Oracle {
    /// Notes a broken promise (the first one counts).
    pub(crate) fn broken(&mut self, what: String) {
        self.violation.get_or_insert(Violation(what));
    }

    pub(crate) fn known(&mut self, name: &str) -> &mut Known {
        self.logs.entry(name.to_owned()).or_default()
    }

    /// After a crash: what the last handles still knew bounds what may be found.
    pub(crate) fn crashed(&mut self) {
        for known in self.logs.values_mut() {
            let asked =
                known.twin.possible().into_iter().flatten().map(|state| state.start).max().unwrap_or(0);
            let seen = known.log.take().map_or(0, |log| log.log_start_offset());
            known.start_max = known.start_max.max(asked).max(seen);
        }
    }
}

/// Compares every log of a store just opened with what its history allows, and goes on from what is found.
pub(crate) async fn check_store(store: &Store<SimDisk>, oracle: &OracleRef) -> Result<(), Unjudged> {
    let broken = |what: String| Unjudged::Broken(Violation(what));
    let names: Vec<String> = oracle.borrow().logs.keys().cloned().collect();
    for log in store.logs() {
        if !names.iter().any(|name| **name == *log.name()) {
            return Err(broken(format!("log {} exists, and was never created", log.name())));
        }
    }
    for name in names {
        let log = store.log(&name);
        let (possible, start_max, story) = {
            let mut oracle = oracle.borrow_mut();
            let known = oracle.known(&name);
            (known.twin.possible(), known.start_max, known.twin.story())
        };
        let found = match find_state(log.as_ref(), possible, start_max).await {
            Err(Unjudged::Broken(what)) => return Err(broken(format!("log {name}: {}; {story}", what.0))),
            found => found?,
        };
        let mut oracle = oracle.borrow_mut();
        let known = oracle.known(&name);
        known.start_max = found.as_ref().map_or(0, |state| state.start);
        known.twin.settle(found);
        known.log = log;
    }
    Ok(())
}

/// Which of the possible states the log is in.
async fn find_state(
    log: Option<&Log<SimDisk>>,
    possible: Vec<Option<State>>,
    start_max: i64,
) -> Result<Option<State>, Unjudged> {
    let broken = |what: String| Unjudged::Broken(Violation(what));
    let Some(log) = log else {
        if possible.iter().any(Option::is_none) {
            return Ok(None);
        }
        return Err(broken("is gone".into()));
    };
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if log.durable_offset() != end {
        return Err(broken(format!("stable up to {} after opening, not {end}", log.durable_offset())));
    }
    let ends: Vec<i64> = possible.iter().flatten().map(|state| state.end).collect();
    let mut reason = format!("ends at {end}, but only {ends:?} are possible");
    for state in possible.into_iter().flatten().rev().filter(|state| state.end == end) {
        if start < state.start || start > start_max.max(state.start) {
            reason = format!("starts at {start}, not in {}..={start_max}", state.start);
            continue;
        }
        match check_content(log, &state, start..end).await {
            Ok(()) => return Ok(Some(State { start, ..state })),
            Err(Unjudged::Broken(Violation(what))) => reason = what,
            Err(failed) => return Err(failed),
        }
    }
    Err(broken(reason))
}

/// Reads `range` of the log, which must hold exactly the state's batches.
pub(crate) async fn check_content(
    log: &Log<SimDisk>,
    state: &State,
    range: std::ops::Range<i64>,
) -> Result<(), Unjudged> {
    let broken = |what: String| Unjudged::Broken(Violation(what));
    let mut expected = state.readable(range.start).filter(|batch| batch.base_offset < range.end).peekable();
    let mut from = range.start;
    while from < range.end {
        let read = match log.read(from, 32 << 10, range.end, true).await {
            Ok(read) => read,
            // Between a flush that loses a write and the end of its log, a read may meet what is left: a life without
            // faults judges that.
            Err(ReadError::Io(_) | ReadError::Offline(_) | ReadError::Corrupt { .. }) => {
                return Err(Unjudged::DiskFailed);
            }
            Err(ReadError::OutOfRange { start, .. }) if from < start => return Ok(()),
            Err(error) => return Err(broken(format!("read at {from} of {range:?}: {error}"))),
        };
        let bytes = read.slices.concat();
        if bytes.len() != read.bytes || read.next_offset <= from {
            return Err(broken(format!("read at {from} gave {read:?}")));
        }
        check_batches(&bytes, from, &mut expected).map_err(broken)?;
        from = read.next_offset;
    }
    match expected.next() {
        Some(missing) => Err(broken(format!("batch {} was not read", missing.base_offset))),
        None => Ok(()),
    }
}

/// Compares bytes of whole batches with those expected next.
fn check_batches<'a>(
    mut bytes: &[u8],
    from: i64,
    expected: &mut impl Iterator<Item = &'a Rc<Written>>,
) -> Result<(), String> {
    while !bytes.is_empty() {
        let Some(batch) = expected.next() else {
            return Err(format!("read at {from} gave {} bytes beyond what was written", bytes.len()));
        };
        match bytes.strip_prefix(&batch.bytes[..]) {
            Some(rest) => bytes = rest,
            None => {
                let same = bytes.iter().zip(&batch.bytes).take_while(|(a, b)| a == b).count();
                let (base, len) = (batch.base_offset, batch.bytes.len());
                return Err(format!("batch {base} of {len} bytes differs from byte {same} on"));
            }
        }
    }
    Ok(())
}
