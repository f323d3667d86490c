//! Worker threads, each with a runtime of its own and a share of the lanes (connections with what they work on).

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Instant, SystemTime};

use tokio::task::LocalSet;

use crate::meter::{Interval, Meter, Phase, Timeline};
use crate::report::Totals;
use crate::reporter::Reporter;

/// Intervals that may wait for the reporter. A worker that is ahead of it waits.
const INTERVALS_MAX: usize = 256;

/// Runs `future` on a runtime of this thread alone.
pub fn block_on<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// Kinds of work within one run, each with a meter and a report of its own; two for end to end.
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// What its latencies mean.
    pub latency_of: &'static str,
}

/// How a run is carried out.
pub struct Run<'a> {
    /// Worker threads, at most as many as lanes.
    pub threads: usize,
    /// When it begins and ends.
    pub timeline: Timeline,
    /// What is measured.
    pub kinds: &'a [Kind],
    /// A line each second to stderr.
    pub progress: bool,
}

/// Runs `lanes` spread over threads; `work` is called on its thread for each lane with the meters of the run's kinds, and
/// gives the number of requests that stayed unanswered. The work ends by itself when the timeline says so. Gives the totals
/// of each kind.
pub fn run_lanes<L, W, Fut>(run: &Run<'_>, lanes: Vec<L>, work: W) -> io::Result<Vec<Totals>>
where
    L: Send + 'static,
    W: Fn(L, Rc<[Meter]>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = u64> + 'static,
{
    let Run { timeline, progress, .. } = *run;
    let threads = run.threads.clamp(1, lanes.len().max(1));
    let mut shares: Vec<Vec<L>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, lane) in lanes.into_iter().enumerate() {
        shares[number % threads].push(lane);
    }
    let measured_from = SystemTime::now() + timeline.measure_from().saturating_duration_since(Instant::now());
    let (mut senders, mut reporters) = (Vec::new(), Vec::new());
    for kind in run.kinds {
        let (sender, receiver) = sync_channel(INTERVALS_MAX);
        let reporter = Reporter {
            name: kind.name,
            latency_of: kind.latency_of,
            workers: threads,
            progress,
            measured_from,
        };
        senders.push(sender);
        reporters.push(thread::spawn(move || reporter.run(receiver)));
    }
    let work = Arc::new(work);
    let workers: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (senders, work) = (senders.clone(), Arc::clone(&work));
            thread::spawn(move || worker(timeline, senders, share, &*work))
        })
        .collect();
    drop(senders);
    let mut unanswered = 0;
    for worker in workers {
        unanswered += worker.join().map_err(|_| io::Error::other("a worker panicked"))??;
    }
    let mut totals = Vec::new();
    for reporter in reporters {
        totals.push(reporter.join().map_err(|_| io::Error::other("the reporter panicked"))?);
    }
    // The first kind is the one that sends requests that may stay unanswered.
    if let Some(first) = totals.first_mut() {
        first.unanswered = unanswered;
    }
    Ok(totals)
}

fn worker<L, W, Fut>(
    timeline: Timeline,
    senders: Vec<SyncSender<Interval>>,
    lanes: Vec<L>,
    work: &W,
) -> io::Result<u64>
where
    W: Fn(L, Rc<[Meter]>) -> Fut,
    Fut: Future<Output = u64> + 'static,
{
    block_on(async move {
        let meters: Rc<[Meter]> = senders.into_iter().map(|sender| Meter::new(timeline, sender)).collect();
        let tasks: Vec<_> =
            lanes.into_iter().map(|lane| tokio::task::spawn_local(work(lane, Rc::clone(&meters)))).collect();
        let ticks: Vec<_> = (0..meters.len())
            .map(|kind| {
                let meters = Rc::clone(&meters);
                tokio::task::spawn_local(async move { meters[kind].tick_until_end().await })
            })
            .collect();
        for tick in ticks {
            let _ = tick.await;
        }
        let mut unanswered = 0;
        for task in tasks {
            unanswered += task.await.map_err(io::Error::other)?;
        }
        let (end, now) = (timeline.end() - timeline.start, Instant::now() - timeline.start);
        for meter in meters.iter() {
            meter.flush(u64::MAX, Phase::Drain, end, now.max(end));
        }
        Ok(unanswered)
    })?
}
