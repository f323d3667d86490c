//! A small blocking Kafka client for the command line: connections, version negotiation, metadata, leaders,
//! coordinators, offsets.
//!
//! It works against any broker that speaks Kafka's protocol and shares nothing with the broker in this package. One
//! request is in flight at a time; there are no threads and no queues. Every wait has an end: [`CONNECT_TIMEOUT`],
//! [`ANSWER_TIMEOUT`], and [`RETRY_PATIENCE`] for what may pass by itself.

mod cluster;
mod connection;
mod group_offsets;
mod membership;
mod offsets;

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use penstock_protocol::{EncodeError, ErrorCode};

pub(crate) use cluster::{Cluster, Partition, Topic};
pub(crate) use connection::Connection;
pub(crate) use group_offsets::{Committer, Offsets, check_served, commit, committed};
pub(crate) use membership::{Membership, Standing, decode_assignment};
pub(crate) use offsets::OffsetAt;

/// How long a connection attempt may take.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take; brokers are asked to be done in less.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What brokers are told of how long an operation may take, in milliseconds.
pub(crate) const OPERATION_TIMEOUT_MS: i32 = 30_000;
/// How long what may pass by itself (a partition without a leader, say) is tried again.
pub(crate) const RETRY_PATIENCE: Duration = Duration::from_secs(15);
const RETRY_BACKOFF_MIN: Duration = Duration::from_millis(50);
const RETRY_BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Why a broker was not reached, or did not do what was asked; each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("'{0}' is no address; give --bootstrap HOST:PORT")]
    Address(String),
    #[error("no broker answers at {address} ({error}): is it started? see --bootstrap")]
    Unreachable { address: String, error: io::Error },
    #[error("the connection to {address} broke ({error}): the broker may have stopped; try again")]
    Broken { address: String, error: io::Error },
    #[error("{address} did not answer {api} within {} s: it may be overloaded; try again", .after.as_secs())]
    Timeout { address: String, api: &'static str, after: Duration },
    #[error(
        "{address} answers something else than Kafka's protocol ({what}): is that a broker's port? see --bootstrap"
    )]
    Foreign { address: String, what: String },
    #[error(
        "the broker at {address} does not serve {api} in a version known here: it may be too old, or lack the feature"
    )]
    NotServed { address: String, api: &'static str },
    #[error("{what}: {}", refusal(*.code, .message.as_deref()))]
    Refused { what: String, code: ErrorCode, message: Option<String> },
    #[error(
        "partition {partition} of topic {topic} has no leader: are all brokers started? see `penstock topic describe {topic}`"
    )]
    NoLeader { topic: String, partition: i32 },
    #[error("{0} has no place in a request: {1}")]
    Request(&'static str, EncodeError),
}

impl ClientError {
    /// Whether the same may succeed in a moment without anybody's help.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            ClientError::NoLeader { .. } => true,
            ClientError::Refused { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// Whether the same may succeed once brokers that went away are back.
    pub(crate) fn may_pass_with_brokers(&self) -> bool {
        self.may_pass() || matches!(self, ClientError::Broken { .. } | ClientError::Unreachable { .. })
    }

    /// Whether the connection is of no use any more.
    fn ends_connection(&self) -> bool {
        matches!(self, ClientError::Broken { .. } | ClientError::Timeout { .. } | ClientError::Foreign { .. })
    }
}

/// `Ok` for no error, else a refusal of `what`.
pub(crate) fn check(
    code: i16,
    message: Option<&str>,
    what: impl FnOnce() -> String,
) -> Result<(), ClientError> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        code => Err(ClientError::Refused { what: what(), code, message: message.map(str::to_owned) }),
    }
}

/// Tries until it succeeds, fails in a way that will not pass, or [`RETRY_PATIENCE`] is over.
pub(crate) fn retry<T>(mut attempt: impl FnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let deadline = Instant::now() + RETRY_PATIENCE;
    let mut backoff = RETRY_BACKOFF_MIN;
    loop {
        match attempt() {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                thread::sleep(backoff);
                backoff = (backoff * 2).min(RETRY_BACKOFF_MAX);
            }
            other => return other,
        }
    }
}

/// What the broker said, or what its code means, with the code's name and a remedy where there is a common one.
fn refusal(code: ErrorCode, message: Option<&str>) -> String {
    let said = message.filter(|message| !message.is_empty()).unwrap_or(code.message());
    let remedy = remedy(code).map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{} ({}){remedy}", said.trim_end_matches('.'), code.name())
}

fn remedy(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => {
            "`penstock topic list` shows the topics there are"
        }
        ErrorCode::TopicAlreadyExists => "choose another name, or alter it with `penstock topic alter`",
        ErrorCode::InvalidReplicationFactor => "ask for at most as many replicas as there are brokers",
        ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId => "stop the group's members first",
        ErrorCode::InconsistentGroupProtocol => {
            "the group's members share partitions out in another way: choose another group"
        }
        ErrorCode::GroupIdNotFound => "`penstock group list` shows the groups there are",
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => {
            "send smaller records, or raise the topic's max.message.bytes"
        }
        ErrorCode::NotEnoughReplicas | ErrorCode::NotEnoughReplicasAfterAppend => {
            "start the missing brokers, or lower the topic's min.insync.replicas"
        }
        ErrorCode::CoordinatorNotAvailable | ErrorCode::CoordinatorLoadInProgress => "try again in a moment",
        ErrorCode::TopicAuthorizationFailed
        | ErrorCode::GroupAuthorizationFailed
        | ErrorCode::ClusterAuthorizationFailed => "ask the cluster's administrator for the right to do this",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_why_and_what_to_do() {
        let refused = |code, message| check(code, message, || "deleting topic t".to_owned()).unwrap_err();
        assert_eq!(
            refused(3, None).to_string(),
            "deleting topic t: no such topic or partition is known here (UNKNOWN_TOPIC_OR_PARTITION); \
             `penstock topic list` shows the topics there are"
        );
        assert_eq!(
            refused(44, Some("Not on a Friday.")).to_string(),
            "deleting topic t: Not on a Friday (POLICY_VIOLATION)"
        );
        assert!(check(0, None, String::new).is_ok());
        assert!(refused(3, None).may_pass() && !refused(44, None).may_pass());
    }

    #[test]
    fn what_will_not_pass_is_tried_once_and_what_may_pass_again() {
        let mut tries = 0;
        let failed = retry(|| {
            tries += 1;
            check(44, None, String::new)
        });
        assert!(failed.is_err() && tries == 1);
        let mut codes = [14, 15, 0].into_iter();
        let passed = retry(|| check(codes.next().unwrap(), None, String::new));
        assert!(passed.is_ok() && codes.next().is_none());
    }
}
