//! `penstock consume`: the records of a topic, each partition's in order; alone, or as a member of a consumer group.
//!
//! Records of open and aborted transactions are shown too (isolation "read uncommitted", the default of Kafka's clients).

mod fetch;
mod group;
mod print;

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Failure, Remote, time};
use crate::client::{ClientError, Cluster, OffsetAt, RETRY_PATIENCE};
use fetch::{Position, Reader};
use print::{Field, Form, Printer};

/// Between attempts while a broker or leader is away.
const BACKOFF: Duration = Duration::from_millis(100);

/// What `consume` takes.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic.
    topic: String,
    /// A partition; may be repeated [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,
    /// Read as a member of this consumer group: go on where it stopped, share the partitions with its other members,
    /// and commit what was written out.
    #[arg(long, value_name = "GROUP", conflicts_with = "partition")]
    group: Option<String>,
    /// Where to begin, in a group where it has no offset yet: `beginning`, `end`, `offset:N`, or `time:TIME` (UTC like
    /// 2026-11-21T04:55:00Z, or milliseconds since 1970).
    #[arg(long, value_name = "PLACE", default_value = "beginning", value_parser = place)]
    from: Place,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// End where the partitions ended when the command began; in a group, when it was given them last.
    #[arg(long)]
    exit_at_end: bool,
    /// What to print of a record, in this order; with --json it is everything.
    #[arg(long, value_enum, value_name = "FIELD,...", value_delimiter = ',', default_value = "value")]
    print: Vec<Field>,
    /// Between the fields.
    #[arg(long, value_name = "TEXT", default_value = "\t")]
    separator: String,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    At(OffsetAt),
    Offset(i64),
}

fn place(text: &str) -> Result<Place, String> {
    match text.split_once(':') {
        None if text == "beginning" => Ok(Place::At(OffsetAt::Earliest)),
        None if text == "end" => Ok(Place::At(OffsetAt::Latest)),
        Some(("offset", offset)) => {
            let offset = offset.parse::<i64>().ok().filter(|offset| *offset >= 0);
            offset.map(Place::Offset).ok_or_else(|| "expected offset:N with N from 0".to_owned())
        }
        Some(("time", at)) => Ok(Place::At(OffsetAt::Time(time::parse_ms(at)?))),
        _ => Err("expected beginning, end, offset:N or time:TIME".to_owned()),
    }
}

pub(crate) fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    let out = args.remote.output();
    let form = match out.is_json() {
        true => Form::Json,
        false => Form::Text { fields: &args.print, separator: &args.separator },
    };
    let mut printer = Printer::new(out, form, args.max);
    let read = match &args.group {
        Some(group) => group::read(args, group, &mut printer),
        None => read(args, &mut printer),
    };
    // What was read before something failed is shown.
    let flushed = printer.flush();
    read.and(flushed)
}

fn read(args: &ConsumeArgs, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let mut cluster = args.remote.cluster()?;
    let topic = cluster.topic(&args.topic)?;
    let partitions = topic.select(&args.partition)?;
    let positions = begin(&mut cluster, args, &partitions)?;
    let mut reader = Reader { topic, positions };
    let mut trouble = Trouble::default();
    while !reader.is_at_end() && !printer.is_done() {
        trouble.judge(reader.round(&mut cluster, printer))?;
        printer.flush()?;
        if trouble.is_there() {
            // A leader that moved, or a broker that went away: who leads now?
            match cluster.topic(&args.topic) {
                // That somebody knows the topic does not end the trouble: records do.
                Ok(topic) => reader.topic = topic,
                Err(error) => trouble.judge(Err(error.into()))?,
            }
        }
    }
    Ok(())
}

/// Where each partition begins if nothing else says so, and ends if it does.
fn begin(
    cluster: &mut Cluster,
    args: &ConsumeArgs,
    partitions: &[i32],
) -> Result<Vec<Position>, ClientError> {
    let ends = match args.exit_at_end {
        true => Some(cluster.offsets(&args.topic, partitions, OffsetAt::Latest)?),
        false => None,
    };
    let starts = match args.from {
        Place::At(at) => Some(cluster.offsets(&args.topic, partitions, at)?),
        Place::Offset(_) => None,
    };
    let position = |partition: &i32| {
        let listed = starts.as_ref().and_then(|starts| starts.get(partition).copied());
        let next = match args.from {
            Place::Offset(offset) => offset,
            Place::At(_) => listed.unwrap_or_default(),
        };
        Position {
            partition: *partition,
            next,
            end: ends.as_ref().and_then(|ends| ends.get(partition).copied()),
        }
    };
    Ok(partitions.iter().map(position).collect())
}

/// Lets pass what may pass by itself, for at most [`RETRY_PATIENCE`].
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Instant>,
}

impl Trouble {
    fn is_there(&self) -> bool {
        self.since.is_some()
    }

    /// Fails with what will not pass. Waits a moment after what may.
    fn judge(&mut self, done: Result<(), Failure>) -> Result<(), Failure> {
        match done {
            Ok(()) => self.since = None,
            Err(Failure::Client(error)) if error.may_pass_with_brokers() => {
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() > RETRY_PATIENCE {
                    return Err(error.into());
                }
                thread::sleep(BACKOFF);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        assert_eq!(place("beginning"), Ok(Place::At(OffsetAt::Earliest)));
        assert_eq!(place("end"), Ok(Place::At(OffsetAt::Latest)));
        assert_eq!(place("offset:7"), Ok(Place::Offset(7)));
        assert_eq!(place("time:1970-01-02"), Ok(Place::At(OffsetAt::Time(86_400_000))));
        for bad in ["", "start", "offset:-1", "offset:", "offset", "time:x", "end:1"] {
            assert!(place(bad).is_err(), "{bad:?}");
        }
    }
}
