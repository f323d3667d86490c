//! Reading as a member of a consumer group.
//!
//! An offset is committed only after the record before it was written out, so a record is lost by no end of this
//! process, but may be printed again by whoever reads on. SIGINT and SIGTERM end the command after what was read is
//! committed and the group left; a second one ends it at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::fetch::Reader;
use super::print::Printer;
use super::{ConsumeArgs, Trouble, begin};
use crate::client::{Cluster, Membership, Standing, committed};
use crate::command::Failure;
use crate::runtime::os;

/// Between looks at the group while this member has no partition.
const IDLE: Duration = Duration::from_millis(200);
/// Exit status after a second signal, as of a shell after SIGINT.
const INTERRUPTED: i32 = 130;

/// What outlasts an assignment.
struct Session<'a> {
    args: &'a ConsumeArgs,
    group: &'a str,
    cluster: Cluster,
    member: Membership,
    trouble: Trouble,
    stop: Arc<AtomicBool>,
}

pub(super) fn read(args: &ConsumeArgs, group: &str, printer: &mut Printer<'_>) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let mut cluster = args.remote.cluster()?;
    // A topic that is not there would leave this member without partitions, waiting for ever.
    cluster.topic(&args.topic)?;
    let member = Membership::new(group, &args.topic);
    let mut session = Session { args, group, cluster, member, trouble: Trouble::default(), stop };
    let done = loop {
        match session.serve(printer) {
            Ok(End::Rejoin) => {}
            Ok(End::Done) => break Ok(()),
            Err(failure) => match session.trouble.judge(Err(failure)) {
                Ok(()) if session.is_over(printer) => break Ok(()),
                Ok(()) => {}
                failed => break failed,
            },
        }
    };
    // What fails here only costs the others the time until the session is over.
    drop(session.member.leave(&mut session.cluster));
    done
}

/// Why an assignment is no longer read.
enum End {
    /// The group shares partitions out anew.
    Rejoin,
    /// All that was asked for was read, or a signal came.
    Done,
}

impl Session<'_> {
    fn is_over(&self, printer: &Printer<'_>) -> bool {
        printer.is_done() || self.stop.load(Ordering::Relaxed)
    }

    /// Joins, and reads what this member is given for as long as it holds.
    fn serve(&mut self, printer: &mut Printer<'_>) -> Result<End, Failure> {
        let (mut reader, mut stable) = self.join()?;
        // A place that the group does not know yet is committed too, so that nobody looks for it anew, beyond what came since.
        if self.keep(&reader, &mut stable)? == Standing::Rejoin {
            return Ok(End::Rejoin);
        }
        loop {
            if self.is_over(printer) || (self.args.exit_at_end && reader.is_at_end()) {
                return Ok(End::Done);
            }
            let read = match reader.is_at_end() {
                true => {
                    thread::sleep(IDLE);
                    Ok(())
                }
                false => reader.round(&mut self.cluster, printer),
            };
            // What came before a failure was printed, and is committed too.
            printer.flush()?;
            if self.keep(&reader, &mut stable)? == Standing::Rejoin {
                return Ok(End::Rejoin);
            }
            read?;
            self.trouble = Trouble::default();
        }
    }

    /// Commits what is not yet, and tells the group of this member.
    fn keep(&mut self, reader: &Reader, stable: &mut BTreeMap<i32, i64>) -> Result<Standing, Failure> {
        let mut offsets = reader.offsets();
        offsets.retain(|partition, offset| stable.get(partition) != Some(offset));
        if !offsets.is_empty() {
            if self.member.commit(&mut self.cluster, &offsets)? == Standing::Rejoin {
                return Ok(Standing::Rejoin);
            }
            stable.extend(offsets);
        }
        // Only a heartbeat is told that partitions are to be shared out anew.
        Ok(self.member.heartbeat(&mut self.cluster)?)
    }

    /// The partitions that the group gives to this member, each from where the group stopped; and the offsets that the
    /// group knows.
    fn join(&mut self) -> Result<(Reader, BTreeMap<i32, i64>), Failure> {
        let partitions: Vec<i32> = self.member.join(&mut self.cluster)?.into_iter().collect();
        let topic = self.cluster.topic(&self.args.topic)?;
        let mut positions = begin(&mut self.cluster, self.args, &partitions)?;
        let known = committed(&mut self.cluster, self.group)?;
        let mut stable = BTreeMap::new();
        for position in &mut positions {
            if let Some(offset) = known.get(&(self.args.topic.clone(), position.partition)) {
                position.next = *offset;
                stable.insert(position.partition, *offset);
            }
        }
        Ok((Reader { topic, positions }, stable))
    }
}

/// A flag that the first SIGINT or SIGTERM raises.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    os::block_stop_signals().map_err(|error| Failure::Failed(format!("cannot block signals: {error}")))?;
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    thread::spawn(move || {
        if os::wait_for_stop().is_ok() {
            raised.store(true, Ordering::Relaxed);
        }
        if os::wait_for_stop().is_ok() {
            std::process::exit(INTERRUPTED);
        }
    });
    Ok(stop)
}
