//! A small Kafka client: version negotiation, metadata, topics, offsets, and pipelined connections to leaders.
//!
//! It does what a load generator needs and no more: no background threads, no hidden retries, no hidden queues. Whoever
//! uses it decides what a failure means.

mod cluster;
mod connection;
mod sessions;

use std::io;
use std::time::{Duration, Instant};

use penstock_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode};

pub use cluster::{Cluster, OffsetSpec, Partition, Topic, TopicSpec};
pub use connection::{Connection, Receiver, Sender};
pub use sessions::{Session, by_leader};

/// How long a connection attempt may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two attempts at the same.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// Why the client could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker's answer is not what the protocol says.
    #[error("an answer cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A request cannot be written; the fault is ours or that of the options.
    #[error("a request cannot be written: {0}")]
    Encode(#[from] EncodeError),
    /// An answer that breaks the protocol's rules in another way.
    #[error("the broker answered wrongly: {0}")]
    Protocol(String),
    /// The broker and this client have no version of the API in common.
    #[error("the broker serves no version of {0} that this client speaks")]
    NoCommonVersion(ApiKey),
    /// The broker refused, with one of Kafka's error codes.
    #[error("{what}: {}", error_name(*.code))]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's error code.
        code: i16,
    },
    /// No answer in time.
    #[error("no answer within {} s to {what}", .after.as_secs())]
    Timeout {
        /// What was asked for.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A partition has no leader at the moment.
    #[error("partition {0} has no leader")]
    NoLeader(i32),
}

impl ClientError {
    /// Whether the same may succeed later: a connection that broke, a broker that is away or not ready.
    pub fn may_pass(&self) -> bool {
        match self {
            ClientError::Io(_) | ClientError::Timeout { .. } | ClientError::NoLeader(_) => true,
            ClientError::Refused { code, .. } => ErrorCode::known(*code).is_some_and(ErrorCode::is_retriable),
            ClientError::Decode(_)
            | ClientError::Encode(_)
            | ClientError::Protocol(_)
            | ClientError::NoCommonVersion(_) => false,
        }
    }
}

/// Does `attempt` until it succeeds, fails in a way that will not pass, or `patience` is over.
pub async fn retry<T, Fut>(patience: Duration, mut attempt: impl FnMut() -> Fut) -> Result<T, ClientError>
where
    Fut: Future<Output = Result<T, ClientError>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match attempt().await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                tokio::time::sleep(RETRY_BACKOFF).await;
            }
            other => return other,
        }
    }
}

/// The name of one of Kafka's error codes, for example `NOT_LEADER_OR_FOLLOWER`.
pub fn error_name(code: i16) -> String {
    match ErrorCode::known(code) {
        Some(error) => error.name().to_owned(),
        None => format!("error code {code}"),
    }
}

/// `Ok` for code 0, else a refusal of `what`.
pub fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), ClientError> {
    if code == 0 { Ok(()) } else { Err(ClientError::Refused { what: what(), code }) }
}
