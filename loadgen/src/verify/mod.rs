//! The verifier: produces records whose content names them, remembers every acknowledged one, and checks what is there.
//!
//! The producing half never gives a record up: after any failure that may pass (a connection lost, a broker that was killed)
//! it sends what is not acknowledged again, in order, with the sequences it had. So in every partition the sequences of a
//! run must rise without a gap. A check holds the log against that and against what was acknowledged:
//!
//! | violation | when |
//! |---|---|
//! | missing | an acknowledged record is not in the log |
//! | duplicated | a record is there twice, though the producer was idempotent |
//! | out of order | a sequence that does not follow the one before it |
//! | altered | a batch's crc is wrong, or a record's key or value is not what its name says |
//! | displaced | a record is not at the offset that was acknowledged, or offsets of the log jump |

mod check;
mod content;
mod partition_check;
mod pending;
mod produce;
mod ranges;
mod state;
mod violations;

pub use check::{CheckReport, check};
pub use content::{RecordName, VALUE_HEADER_LEN};
pub use partition_check::{Found, PartitionCheck};
pub use produce::{Finished, Verifier, VerifySpec};
pub use ranges::RangeSet;
pub use state::{Acked, Delivery, Run, StateError, StateWriter, read_state};
pub use violations::{Violation, Violations};

use crate::client::ClientError;

/// Why verification itself could not go on; nothing is said about the records.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The broker refused for good, broke the protocol, or stayed away for too long.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// Threads, or the state file could not be written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A batch could not be encoded.
    #[error(transparent)]
    Build(#[from] penstock_format::BuildError),
}
