//! AlterConfigs (33), versions 0-2: KIP-133. It replaces all configs of a resource; IncrementalAlterConfigs is safer.

use penstock_core::metadata::Command;
use penstock_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use penstock_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::RequestContext;
use super::submit::submit;

pub(super) async fn handle(context: RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = request.resources.iter();
    let named: Vec<_> =
        resources.map(|resource| (resource.resource_type, resource.resource_name.clone())).collect();
    let error = match submit!(context, AlterConfigs, Command::AlterConfigs(request)) {
        Ok(response) => return response,
        Err(error) => error,
    };
    let responses = named.into_iter().map(|(resource_type, resource_name)| AlterConfigsResourceResponse {
        error_code: error.code.code(),
        error_message: error.wire_message(),
        resource_type,
        resource_name,
    });
    AlterConfigsResponse { responses: responses.collect(), ..AlterConfigsResponse::default() }
}
