//! The APIs that are served, one entry each. What is advertised is what is served.

use std::rc::Rc;
use std::sync::LazyLock;

use futures_util::future::LocalBoxFuture;
use penstock_protocol::frame::RequestFrame;
use penstock_protocol::{ApiKey, Request, Versions};

use super::{
    RequestContext, alter_configs, alter_partition_reassignments, alter_replica_log_dirs, api_versions,
    create_partitions, create_topics, delete_groups, delete_records, delete_topics, describe_acls,
    describe_client_quotas, describe_cluster, describe_configs, describe_delegation_token, describe_groups,
    describe_log_dirs, describe_producers, describe_quorum, describe_topic_partitions, describe_transactions,
    describe_user_scram_credentials, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_config_resources, list_groups,
    list_offsets, list_partition_reassignments, list_transactions, metadata, offset_commit, offset_delete,
    offset_fetch, offset_for_leader_epoch, produce, sync_group,
};
use crate::network::pipeline::{Begun, CloseReason};

/// Bytes of a request for which one entry of it is reckoned: a short name with what stands around it.
const BYTES_PER_ENTRY: usize = 16;

/// One API as this broker serves it.
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    /// Versions that its handler takes.
    pub(crate) served: Versions,
    /// Versions that ApiVersions tells.
    pub(crate) advertised: Versions,
    pub(crate) begin: Begin,
}

/// How far a request came as it was begun.
pub(crate) enum FirstStep {
    /// It is begun, or the connection is to be closed.
    Now(Result<Begun, CloseReason>),
    /// Something has to be waited for.
    Later(BeginFuture),
}

type BeginFuture = LocalBoxFuture<'static, Result<Begun, CloseReason>>;
type Begin = Box<dyn Fn(RequestContext, RequestFrame) -> FirstStep + Send + Sync>;

static APIS: LazyLock<Vec<Api>> = LazyLock::new(|| {
    vec![
        // KAFKA-18659: older librdkafka gives up compression, or refuses, unless Produce begins at version 0.
        staged(Versions { min: 3, max: 13 }, produce::begin).advertised_from(0),
        staged(Versions { min: 4, max: 18 }, |context, request| {
            FirstStep::Later(Box::pin(fetch::begin(context, request)))
        }),
        answered(Versions { min: 1, max: 11 }, list_offsets::handle),
        answered(Versions { min: 0, max: 13 }, metadata::handle),
        answered(Versions { min: 2, max: 10 }, offset_commit::handle),
        answered(Versions { min: 1, max: 10 }, offset_fetch::handle),
        answered(Versions { min: 0, max: 6 }, find_coordinator::handle),
        answered(Versions { min: 0, max: 9 }, join_group::handle),
        answered(Versions { min: 0, max: 4 }, heartbeat::handle),
        answered(Versions { min: 0, max: 5 }, leave_group::handle),
        answered(Versions { min: 0, max: 5 }, sync_group::handle),
        answered(Versions { min: 0, max: 6 }, describe_groups::handle),
        answered(Versions { min: 0, max: 5 }, list_groups::handle),
        answered(Versions { min: 0, max: 5 }, api_versions::handle),
        answered(Versions { min: 2, max: 7 }, create_topics::handle),
        answered(Versions { min: 1, max: 6 }, delete_topics::handle),
        answered(Versions { min: 0, max: 2 }, delete_records::handle),
        answered(Versions { min: 0, max: 5 }, init_producer_id::handle),
        answered(Versions { min: 2, max: 4 }, offset_for_leader_epoch::handle),
        answered(Versions { min: 1, max: 3 }, describe_acls::handle),
        answered(Versions { min: 1, max: 4 }, describe_configs::handle),
        answered(Versions { min: 0, max: 2 }, alter_configs::handle),
        answered(Versions { min: 1, max: 2 }, alter_replica_log_dirs::handle),
        answered(Versions { min: 1, max: 5 }, describe_log_dirs::handle),
        answered(Versions { min: 0, max: 3 }, create_partitions::handle),
        answered(Versions { min: 1, max: 3 }, describe_delegation_token::handle),
        answered(Versions { min: 0, max: 3 }, delete_groups::handle),
        answered(Versions { min: 0, max: 2 }, elect_leaders::handle),
        answered(Versions { min: 0, max: 1 }, incremental_alter_configs::handle),
        answered(Versions { min: 0, max: 1 }, alter_partition_reassignments::handle),
        answered(Versions { min: 0, max: 0 }, list_partition_reassignments::handle),
        answered(Versions { min: 0, max: 0 }, offset_delete::handle),
        answered(Versions { min: 0, max: 1 }, describe_client_quotas::handle),
        answered(Versions { min: 0, max: 0 }, describe_user_scram_credentials::handle),
        answered(Versions { min: 0, max: 2 }, describe_quorum::handle),
        answered(Versions { min: 0, max: 2 }, describe_cluster::handle),
        answered(Versions { min: 0, max: 0 }, describe_producers::handle),
        answered(Versions { min: 0, max: 0 }, describe_transactions::handle),
        answered(Versions { min: 0, max: 2 }, list_transactions::handle),
        answered(Versions { min: 0, max: 1 }, list_config_resources::handle),
        answered(Versions { min: 0, max: 0 }, describe_topic_partitions::handle),
    ]
});

/// All APIs served, by rising key.
pub(crate) fn all() -> &'static [Api] {
    &APIS
}

/// The API's entry, if it is served.
pub(crate) fn find(key: ApiKey) -> Option<&'static Api> {
    all().binary_search_by_key(&key.code(), |api| api.key.code()).ok().map(|at| &all()[at])
}

/// What a task notes on its shard's board while it works on a request of this API: see [`name_of_note`].
pub(crate) fn note_of(key: i16) -> u16 {
    u16::try_from(key).map_or(0, |key| key.saturating_add(1))
}

/// The API that a task noted, empty if none.
pub(crate) fn name_of_note(note: u16) -> &'static str {
    let code = note.checked_sub(1).and_then(|code| i16::try_from(code).ok());
    let found = code.and_then(|code| all().iter().find(|api| api.key.code() == code));
    found.map_or("", |api| api.key.name())
}

/// An API whose requests are finished before the connection's next one begins.
fn answered<R, F>(
    served: Versions,
    handle: impl Fn(RequestContext, R) -> F + Copy + Send + Sync + 'static,
) -> Api
where
    R: Request + Send + 'static,
    F: Future<Output = R::Response>,
    R::Response: Send + 'static,
{
    entry(R::API, served, move |context, frame| {
        FirstStep::Later(Box::pin(async move {
            let mut context = RequestContext { entries: Some(Rc::default()), ..context };
            let large = frame.body.len() / BYTES_PER_ENTRY;
            let decoded = move || decode::<R>(&frame);
            let request = context.shard.desk.run_by_size(large, decoded).await?;
            context.decoded();
            let response = handle(context.clone(), request).await;
            Ok(Begun::Done(context.encode_by_size(R::API, large, response).await?))
        }))
    })
}

/// An API whose requests go on after the next one began.
fn staged<R>(
    served: Versions,
    begin: impl Fn(RequestContext, R) -> FirstStep + Copy + Send + Sync + 'static,
) -> Api
where
    R: Request + 'static,
{
    entry(R::API, served, move |context, frame| match decode::<R>(&frame) {
        Ok(request) => begin(context, request),
        Err(reason) => FirstStep::Now(Err(reason)),
    })
}

fn entry(
    key: ApiKey,
    served: Versions,
    begin: impl Fn(RequestContext, RequestFrame) -> FirstStep + Send + Sync + 'static,
) -> Api {
    Api { key, served, advertised: served, begin: Box::new(begin) }
}

impl Api {
    fn advertised_from(mut self, min: i16) -> Api {
        self.advertised.min = min;
        self
    }
}

fn decode<R: Request>(frame: &RequestFrame) -> Result<R, CloseReason> {
    frame.decode::<R>().map_err(|error| {
        CloseReason(format!("malformed {} request of version {}: {error}", frame.api.name(), frame.version))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod document;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_within_the_schema() {
        assert!(all().is_sorted_by_key(|api| api.key.code()));
        for api in all() {
            let valid = api.key.versions();
            assert!(valid.contains(api.served.min) && valid.contains(api.served.max), "{}", api.key);
            assert_eq!(api.advertised.max, api.served.max);
            assert_eq!(name_of_note(note_of(api.key.code())), api.key.name());
        }
        assert_eq!((name_of_note(0), note_of(-1), name_of_note(u16::MAX)), ("", 0, ""));
    }
}
