//! What administrators ask of a cluster: functions of the request and of the metadata.
//!
//! Much of what can be asked about does not exist yet (quotas, credentials, reassignments). It is answered as Apache
//! Kafka answers where there is none of it, with the same refusals of requests that make no sense.

mod client_quotas;
mod config_resources;
mod credentials;
mod elections;
mod log_dirs;
mod quorum;
mod transactions;

pub use client_quotas::describe_client_quotas;
pub use config_resources::list_config_resources;
pub use credentials::describe_user_scram_credentials;
pub use elections::elect_leaders;
pub use log_dirs::{
    DirectoryPlace, Volume, alter_replica_log_dirs, describe_log_dirs, partitions_to_measure,
};
pub use quorum::{Quorum, describe_quorum};
pub use transactions::{describe_transactions, list_transactions};
