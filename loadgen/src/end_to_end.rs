//! Producers and consumers in one process: the time from when a batch was meant to leave until a consumer holds it.
//!
//! Each batch carries its intended time (nanoseconds since the run's epoch) at the start of its first value, so the clock is
//! this process's own and monotonic. Batches are not compressed, for a stamp could not be patched in.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use penstock_format::Compression;

use crate::client::OffsetSpec;
use crate::consume::{self, ConsumeSpec, ReadContext, ReadLane};
use crate::produce::{self, Lane, ProduceSpec, RunError, STAMP_LEN};
use crate::report::Totals;
use crate::workers::{Kind, Run, block_on, run_lanes};

enum Work {
    Produce(Lane),
    Read(ReadLane),
}

/// Runs both loads at once, consumers from the end of the log; gives the totals of the producers, then the consumers'.
/// Topic, times, threads and progress of `read` are those of `write`.
pub fn run(write: ProduceSpec, read: ConsumeSpec) -> Result<(Totals, Totals), RunError> {
    if write.payload.compression != Compression::None || write.payload.record_size < STAMP_LEN {
        let rule = "end to end needs records of at least 8 bytes without compression";
        return Err(RunError::Options(rule.to_owned()));
    }
    let read = ConsumeSpec {
        topic: write.topic.clone(),
        from: OffsetSpec::Latest,
        cycle: false,
        warm_up: write.warm_up,
        duration: write.duration,
        ..read
    };
    let (topic, read_lanes) = block_on(async {
        let topic = produce::prepare(&write).await?;
        let lanes = consume::plan(&read, &topic).await?;
        Ok::<_, crate::client::ClientError>((topic, lanes))
    })??;
    let epoch = Instant::now();
    let (shared, lanes) = produce::plan(write, &topic, Some(epoch))?;
    let (timeline, threads, progress) = (shared.timeline, shared.spec.threads, shared.spec.progress);
    let shared = Arc::new(shared);
    let context = Arc::new(ReadContext { spec: read, timeline, kind: 1, stamp_epoch: Some(epoch) });
    // Consumers first: they are waiting when the first batch arrives.
    let work: Vec<Work> =
        read_lanes.into_iter().map(Work::Read).chain(lanes.into_iter().map(Work::Produce)).collect();
    let kinds = [
        Kind { name: "produce", latency_of: "request to answer, from the time it was meant to leave" },
        Kind {
            name: "end-to-end",
            latency_of: "batch, from the time it was meant to leave until it was consumed",
        },
    ];
    let run = Run { threads, timeline, kinds: &kinds, progress };
    let mut totals = run_lanes(&run, work, move |work, meters: Rc<_>| {
        let (shared, context) = (Arc::clone(&shared), Arc::clone(&context));
        async move {
            match work {
                Work::Produce(lane) => produce::lane_work(shared, lane, meters).await,
                Work::Read(lane) => consume::read_lane(context, lane, meters).await,
            }
        }
    })?
    .into_iter();
    match (totals.next(), totals.next()) {
        (Some(produced), Some(consumed)) => Ok((produced, consumed)),
        _ => Err(RunError::Options("nothing was measured".to_owned())),
    }
}
