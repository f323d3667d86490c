//! Kafka's APIs: one file per API, headed by the versions and proposals it serves.
//!
//! A handler translates: from the request to core, the shards and back; it decides nothing that core can decide.
//! The [`registry`] lists what is served; this file takes a request from its bytes to its handler.

mod alter_configs;
mod alter_partition_reassignments;
mod alter_replica_log_dirs;
mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_acls;
mod describe_client_quotas;
mod describe_cluster;
mod describe_configs;
mod describe_delegation_token;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod describe_transactions;
mod describe_user_scram_credentials;
mod elect_leaders;
mod fetch;
mod fetch_answer;
mod find_coordinator;
mod group_call;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod list_partition_reassignments;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod produce;
mod produce_batches;
pub(crate) mod registry;
mod scatter;
mod submit;
mod sync_group;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use penstock_protocol::frame::{self, RequestFrame};
use penstock_protocol::{ApiKey, Message, WireString};
use penstock_storage::disk::tasks;
pub(crate) use produce_batches::PINNED_PER_BODY_MAX;
use registry::FirstStep;

use crate::network::connection::Connection;
use crate::network::pipeline::{Answer, Begun, CloseReason};
use crate::shard::{Course, Shard, Stage, Step};

/// What a handler knows besides its request.
#[derive(Clone)]
pub(crate) struct RequestContext {
    /// The shard that serves the connection.
    pub(crate) shard: Rc<Shard>,
    pub(crate) connection: Rc<Connection>,
    /// Version of the request, and of its response.
    pub(crate) version: i16,
    /// The client's name for itself.
    pub(crate) client_id: Option<WireString>,
    correlation_id: i32,
    /// Bytes that a slice of the request keeps in memory.
    piece_bytes: usize,
    course: Course,
    /// Entries of the answer, as its handler tells; `None` for those that answer without being told.
    entries: Option<Rc<Cell<usize>>>,
}

/// Begins a request: reads its header, finds its handler, and runs that to the point from which the next
/// request of this connection may begin. Gives the API's key with what is left to do. `piece_bytes` is the length of the piece of
/// memory that the request lies in.
pub(crate) async fn begin(
    shard: &Rc<Shard>,
    connection: &Rc<Connection>,
    request: Bytes,
    piece_bytes: usize,
    course: Course,
) -> Result<(i16, Begun), CloseReason> {
    let frame = RequestFrame::parse(request).map_err(|error| CloseReason(error.to_string()))?;
    connection.entry().note_client_id(frame.client_id.as_deref());
    let context = RequestContext {
        shard: shard.clone(),
        connection: connection.clone(),
        version: frame.version,
        client_id: frame.client_id.clone(),
        correlation_id: frame.correlation_id,
        piece_bytes,
        course,
        entries: None,
    };
    let key = frame.api.code();
    tasks::note(registry::note_of(key));
    if let Some(entry) = registry::find(frame.api).filter(|entry| entry.served.contains(frame.version)) {
        let begun = match (entry.begin)(context, frame) {
            FirstStep::Now(begun) => begun,
            FirstStep::Later(begun) => begun.await,
        };
        return Ok((key, begun?));
    }
    if frame.api == ApiKey::ApiVersions {
        return Ok((key, Begun::Done(api_versions::unsupported(&context)?)));
    }
    let (name, version) = (frame.api.name(), frame.version);
    Err(CloseReason(format!("{name} version {version} is not served (ApiVersions lists what is)")))
}

impl RequestContext {
    /// Says that the request is decoded, as [`Stage::Decode`] has it, at the moment which it gives; once for each request.
    fn decoded(&mut self) -> Instant {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.course.arrived);
        self.shard.stages.record(Stage::Decode, took);
        self.course.note(Step::Decode, took);
        now
    }

    /// Runs work on so many entries of the request or the answer: beside the shard if they are many. The answer is then
    /// encoded there too.
    async fn by_size<T: Send + 'static>(
        &self,
        entries: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        self.expect_entries(entries);
        self.shard.desk.run_by_size(entries, work).await
    }

    /// Says that the answer is about so many entries.
    fn expect_entries(&self, entries: usize) {
        if let Some(told) = &self.entries {
            told.set(told.get().max(entries));
        }
    }

    /// The answer's bytes, made beside the shard if it, or its request, is about many entries; there it is also taken
    /// apart again.
    async fn encode_by_size<R: Message + Send + 'static>(
        &self,
        api: ApiKey,
        entries: usize,
        response: R,
    ) -> Result<Answer, CloseReason> {
        let (correlation_id, version) = (self.correlation_id, self.version);
        let work = move || encode(correlation_id, api, version, &response);
        let told = self.entries.as_ref().map_or(0, |told| told.get());
        let slices = self.shard.desk.run_by_size(entries.max(told), work).await?;
        Ok(self.answer(slices))
    }

    /// The answer's bytes.
    pub(crate) fn encode<R: Message>(&self, api: ApiKey, response: &R) -> Result<Answer, CloseReason> {
        encode(self.correlation_id, api, self.version, response).map(|slices| self.answer(slices))
    }

    /// What the request came to: these bytes, none where the protocol has no answer.
    fn answer(&self, slices: Vec<Bytes>) -> Answer {
        Answer { slices, held: None, course: self.course }
    }

    /// The answer's bytes in another version than the request's.
    fn encode_as<R: Message>(&self, api: ApiKey, version: i16, response: &R) -> Result<Answer, CloseReason> {
        RequestContext { version, ..self.clone() }.encode(api, response)
    }
}

fn encode<R: Message>(
    correlation_id: i32,
    api: ApiKey,
    version: i16,
    response: &R,
) -> Result<Vec<Bytes>, CloseReason> {
    frame::encode_response(correlation_id, api, version, response).map_err(|error| {
        // A response that its own version cannot carry is a bug of the handler; the client is told by the end of the
        // connection rather than by a wrong answer.
        tracing::error!(api = api.name(), version, "response cannot be encoded: {error}");
        CloseReason(format!("{} response cannot be encoded", api.name()))
    })
}
