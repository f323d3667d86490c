//! DeleteTopics (20), versions 1-6: KIP-4, KIP-599 (5), KIP-516 (by id, 6).

use penstock_core::metadata::Command;
use penstock_protocol::messages::delete_topics_response::DeletableTopicResult;
use penstock_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use penstock_protocol::{Uuid, WireString};

use super::RequestContext;
use super::submit::submit;

pub(super) async fn handle(context: RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.iter().map(|name| (Some(name.clone()), Uuid::ZERO));
    let by_both = request.topics.iter().map(|topic| (topic.name.clone(), topic.topic_id));
    let named: Vec<(Option<WireString>, Uuid)> = by_name.chain(by_both).collect();
    let error = match submit!(context, DeleteTopics, Command::DeleteTopics(request, context.version)) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let responses = named.into_iter().map(|(name, topic_id)| DeletableTopicResult {
        name,
        topic_id,
        error_code: error.code.code(),
        error_message: error.wire_message(),
    });
    DeleteTopicsResponse { responses: responses.collect(), ..DeleteTopicsResponse::default() }
}
