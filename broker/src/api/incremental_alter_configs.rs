//! IncrementalAlterConfigs (44), versions 0-1: KIP-339. Sets, deletes, appends to and subtracts from single configs.

use penstock_core::metadata::Command;
use penstock_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use penstock_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::RequestContext;
use super::submit::submit;

pub(super) async fn handle(
    context: RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = request.resources.iter();
    let named: Vec<_> =
        resources.map(|resource| (resource.resource_type, resource.resource_name.clone())).collect();
    let error = match submit!(context, IncrementalAlterConfigs, Command::IncrementalAlterConfigs(request)) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let responses = named.into_iter().map(|(resource_type, resource_name)| AlterConfigsResourceResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        resource_type,
        resource_name,
    });
    IncrementalAlterConfigsResponse {
        responses: responses.collect(),
        ..IncrementalAlterConfigsResponse::default()
    }
}
