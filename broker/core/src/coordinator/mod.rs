//! What coordinators have in common: one machine for each partition of an internal topic, hosted by its leader.
//!
//! A [`Machine`] decides (`handle`) and changes its durable state in `replay` alone. Its [`Runtime`] puts a log between
//! the two: records are replayed as soon as they are handed out for appending, so that the next request sees them, and
//! answers that tell of them are held until they are durable. If an append fails, what it and all later ones changed is
//! taken back in reverse order and their answers become refusals. [`Partitions`] keeps the runtimes of one shard.
//!
//! The driver takes [`Effect`]s in order. It appends records, calls back once they are durable or cannot be, and sends
//! replies. Time comes in as milliseconds since the Unix epoch; nothing here waits.
//!
//! Bounds: at most [`APPENDS_IN_FLIGHT_MAX`] appends of a partition are under way. Requests that find more are refused
//! with COORDINATOR_NOT_AVAILABLE, which clients repeat.

mod partitions;
mod runtime;
mod timers;

#[cfg(test)]
mod tests;

pub use partitions::Partitions;
pub use runtime::{APPENDS_IN_FLIGHT_MAX, Outbox, Runtime};
pub use timers::Timers;

use penstock_protocol::ErrorCode;

/// The driver's name for a request: each gets exactly one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An append of one partition; they count up in the order in which they must stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// Where a record that is replayed comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Read from the log while loading: it is durable.
    Log,
    /// Decided by this machine just now: it may still be taken back.
    Own,
}

/// A coordinator's state for one partition of its internal topic.
pub trait Machine: Sized {
    /// What clients and the broker ask.
    type Request;
    /// What they are answered with.
    type Response: Refusable;
    /// What is made durable.
    type Record;
    /// What takes back the replay of one record of our own.
    type Undo;
    /// What to do once an append has ended, beyond sending answers.
    type Resume;

    /// Decides on a request. Durable state does not change here; records go to `out`, and so does the answer, unless it
    /// is parked.
    fn handle(&mut self, request: Self::Request, to: RequestId, now_ms: i64, out: &mut Outbox<Self>);

    /// What `request` is answered with where it cannot be handled.
    fn refuse(request: &Self::Request, code: ErrorCode) -> Self::Response;

    /// Applies a record to durable state. For [`Origin::Own`] it says how to take it back, if there is anything to.
    fn replay(&mut self, record: &Self::Record, origin: Origin, now_ms: i64) -> Option<Self::Undo>;

    /// Takes a replay back. Replays are taken back in reverse order.
    fn revert(&mut self, undo: Self::Undo);

    /// Goes on after an append: its records are durable, or they are not and never will be.
    fn resume(
        &mut self,
        resume: Self::Resume,
        result: Result<(), ErrorCode>,
        now_ms: i64,
        out: &mut Outbox<Self>,
    );

    /// When [`Machine::handle_timeout`] has something to do.
    fn poll_timeout(&self) -> Option<i64>;

    /// Does what is due at `now_ms`.
    fn handle_timeout(&mut self, now_ms: i64, out: &mut Outbox<Self>);

    /// All records of the log are replayed: timers start.
    fn loaded(&mut self, now_ms: i64, out: &mut Outbox<Self>);

    /// Answers every parked request with `code`; the machine is dropped afterwards.
    fn unload(&mut self, code: ErrorCode, out: &mut Outbox<Self>);
}

/// An answer that can become a refusal, when what it told of did not become durable.
pub trait Refusable {
    /// The same answer with `code` in place of success.
    fn refused(self, code: ErrorCode) -> Self;
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<R, A> {
    /// Append these records as one batch, in the order of the appends of this partition, then report the end.
    Append {
        /// Partition of the internal topic.
        partition: i32,
        /// Names the append in the report.
        append: AppendId,
        /// At least one.
        records: Vec<R>,
    },
    /// Send an answer.
    Reply {
        /// The request.
        to: RequestId,
        /// Its answer.
        response: A,
    },
}
