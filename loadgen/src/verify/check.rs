//! Reads a topic whole and checks every record of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use penstock_format::{BATCH_HEADER_LEN, Batch};
use penstock_protocol::messages::FetchRequest;
use penstock_protocol::messages::fetch_request::{FetchPartition, FetchTopic};

use super::VerifyError;
use super::partition_check::{Found, PartitionCheck};
use super::state::Run;
use crate::client::{ClientError, Cluster, OffsetSpec, Session, by_leader, check as check_code, retry};

/// Between two attempts after a failure, and after an answer without a record.
const RETRY_BACKOFF: Duration = Duration::from_millis(100);
const PARTITION_MAX_BYTES: i32 = 1 << 20;
const MAX_BYTES: i32 = 16 << 20;

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Records that the runs were told are safe.
    pub acknowledged: u64,
    /// What is in the log.
    pub found: Found,
}

impl CheckReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.found.violations.is_empty()
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { records, repeated, unacknowledged, foreign, violations } = &self.found;
        writeln!(f, "acknowledged {} records; the log holds {records} of these runs", self.acknowledged)?;
        writeln!(
            f,
            "  {unacknowledged} never acknowledged, {repeated} repeated, {foreign} of others besides"
        )?;
        if violations.is_empty() {
            return writeln!(f, "  no violation");
        }
        for (kind, count) in violations.counts() {
            writeln!(f, "  VIOLATION {kind}: {count} records")?;
        }
        for violation in violations.listed() {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

type Checks = Rc<RefCell<BTreeMap<i32, PartitionCheck>>>;

/// Checks everything that the topic of `runs` holds at this moment. Failures that pass are lived through, as long as none
/// lasts for `patience`. Must be called within a `LocalSet`.
pub async fn check(cluster: &Cluster, runs: &[Run], patience: Duration) -> Result<CheckReport, VerifyError> {
    let Some(first) = runs.first() else {
        return Ok(CheckReport::default());
    };
    let topic = cluster.topic_ready(&first.topic, patience).await?;
    let partitions = topic.select(None)?;
    let starts = retry(patience, || cluster.offsets(&topic, &partitions, OffsetSpec::Earliest)).await?;
    let ends = retry(patience, || cluster.offsets(&topic, &partitions, OffsetSpec::Latest)).await?;
    let checks: Checks = Rc::default();
    for (partition, end) in ends {
        let start = starts.get(&partition).copied().unwrap_or(0);
        checks.borrow_mut().insert(partition, PartitionCheck::new(partition, runs, start, end));
    }
    let mut progress = (progress_of(&checks), Instant::now());
    loop {
        let partitions: Vec<i32> = open_partitions(&checks);
        if partitions.is_empty() {
            break;
        }
        let result = by_leader(cluster, &first.topic, &partitions, |session| {
            read(cluster.clone(), session, Rc::clone(&checks))
        })
        .await;
        let now = progress_of(&checks);
        if now > progress.0 {
            progress = (now, Instant::now());
        }
        if progress.1.elapsed() > patience {
            result?;
            let text = format!("partitions {partitions:?} cannot be read to their end");
            return Err(ClientError::Protocol(text).into());
        }
        tokio::time::sleep(RETRY_BACKOFF).await;
    }
    let mut report =
        CheckReport { acknowledged: runs.iter().map(Run::acked_records).sum(), ..Default::default() };
    for check in std::mem::take(&mut *checks.borrow_mut()).into_values() {
        report.add(check.finish());
    }
    Ok(report)
}

impl CheckReport {
    fn add(&mut self, found: Found) {
        self.found.records += found.records;
        self.found.repeated += found.repeated;
        self.found.unacknowledged += found.unacknowledged;
        self.found.foreign += found.foreign;
        self.found.violations.merge(found.violations);
    }
}

fn open_partitions(checks: &Checks) -> Vec<i32> {
    let checks = checks.borrow();
    checks.iter().filter(|(_, check)| check.next_offset().is_some()).map(|(index, _)| *index).collect()
}

/// Records read in all partitions.
fn progress_of(checks: &Checks) -> i64 {
    checks.borrow().values().map(PartitionCheck::position).sum()
}

/// Reads until the partitions of this session are at their end, or an answer brings nothing.
async fn read(cluster: Cluster, session: Session, checks: Checks) -> Result<(), ClientError> {
    let mut connection = cluster.connect(&session.address).await?;
    let mut turn = 0;
    loop {
        let mut wanted: Vec<FetchPartition> = Vec::new();
        for index in &session.partitions {
            if let Some(offset) = checks.borrow().get(index).and_then(PartitionCheck::next_offset) {
                wanted.push(FetchPartition {
                    partition: *index,
                    fetch_offset: offset,
                    log_start_offset: -1,
                    partition_max_bytes: PARTITION_MAX_BYTES,
                    ..FetchPartition::default()
                });
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let count = wanted.len();
        wanted.rotate_left(turn % count);
        turn += 1;
        let (topic, topic_id) = (session.topic.name.clone(), session.topic.id);
        let request = FetchRequest {
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: MAX_BYTES,
            topics: vec![FetchTopic { topic, topic_id, partitions: wanted }],
            ..FetchRequest::default()
        };
        let before = progress_of(&checks);
        let response = connection.call(&request).await?;
        check_code(response.error_code, || "fetching".to_owned())?;
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            check_code(data.error_code, || format!("fetching partition {}", data.partition_index))?;
            let mut checks = checks.borrow_mut();
            let Some(check) = checks.get_mut(&data.partition_index) else { continue };
            for slice in data.records.iter().flat_map(|records| records.slices()) {
                take(slice, check)?;
            }
        }
        if progress_of(&checks) == before {
            return Ok(());
        }
    }
}

/// Takes the whole batches of a fetched slice; the last one may be cut off.
fn take(slice: &Bytes, check: &mut PartitionCheck) -> Result<(), ClientError> {
    let mut rest = slice.clone();
    while rest.len() >= BATCH_HEADER_LEN && check.next_offset().is_some() {
        match Batch::parse(&rest) {
            Ok((batch, consumed)) => {
                check.batch(&batch);
                rest = rest.slice(consumed..);
            }
            Err(penstock_format::BatchError::Truncated { .. }) => return Ok(()),
            Err(error) => {
                return Err(ClientError::Protocol(format!("a fetched batch cannot be read: {error}")));
            }
        }
    }
    Ok(())
}
