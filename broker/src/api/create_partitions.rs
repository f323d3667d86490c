//! CreatePartitions (37), versions 0-3: KIP-195, KIP-599 (3).

use penstock_core::metadata::Command;
use penstock_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use penstock_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::RequestContext;
use super::submit::submit;

pub(super) async fn handle(
    context: RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let names: Vec<_> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let error = match submit!(context, CreatePartitions, Command::CreatePartitions(request)) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let results = names.into_iter().map(|name| CreatePartitionsTopicResult {
        name,
        error_code: error.code.code(),
        error_message: error.wire_message(),
    });
    CreatePartitionsResponse { results: results.collect(), ..CreatePartitionsResponse::default() }
}
