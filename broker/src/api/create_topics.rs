//! CreateTopics (19), versions 2-7: KIP-4, KIP-464 (defaults, 4), KIP-525 (configs told, 5), KIP-599 (6), KIP-516 (ids, 7).

use penstock_core::metadata::Command;
use penstock_protocol::messages::create_topics_response::CreatableTopicResult;
use penstock_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::RequestContext;
use super::submit::submit;

pub(super) async fn handle(context: RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let command = Command::CreateTopics(request);
    // Each topic is told with its configs, as many as it is reckoned for here.
    context.expect_entries(command.entries(&context.shard.shared.image.load()));
    let error = match submit!(context, CreateTopics, command) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let topics = names.into_iter().map(|name| CreatableTopicResult {
        name,
        error_code: error.code.code(),
        error_message: error.wire_message(),
        configs: Some(Vec::new()),
        ..CreatableTopicResult::default()
    });
    CreateTopicsResponse { topics: topics.collect(), ..CreateTopicsResponse::default() }
}
