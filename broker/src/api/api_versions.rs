//! ApiVersions (18), versions 0-5: KIP-35, KIP-511 (client software, 3), KIP-584 (features, 3), KIP-1242 (5: whom the
//! client believes to have reached).

use penstock_protocol::messages::api_versions_response::ApiVersion;
use penstock_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use penstock_protocol::{ApiKey, ErrorCode};

use super::{RequestContext, registry};
use crate::network::pipeline::{Answer, CloseReason};

/// Longest client software name or version that is accepted, in bytes.
const SOFTWARE_BYTES_MAX: usize = 255;

pub(super) async fn handle(context: RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    if context.version >= 3 {
        let (name, version) = (&*request.client_software_name, &*request.client_software_version);
        if !is_software(name) || !is_software(version) {
            return ApiVersionsResponse {
                error_code: ErrorCode::InvalidRequest.code(),
                ..ApiVersionsResponse::default()
            };
        }
        context.connection.entry().note_software(name, version);
    }
    let error =
        if reached_another(&context, &request) { ErrorCode::RebootstrapRequired } else { ErrorCode::None };
    ApiVersionsResponse { error_code: error.code(), api_keys: api_keys(), ..ApiVersionsResponse::default() }
}

/// Whether the client looked for another cluster, or for another node of this one.
fn reached_another(context: &RequestContext, request: &ApiVersionsRequest) -> bool {
    let shared = &context.shard.shared;
    let other_cluster = request.cluster_id.as_ref().is_some_and(|id| id != shared.image.load().cluster_id());
    let other_node = request.node_id >= 0 && request.node_id != shared.config.node_id;
    other_cluster || other_node
}

/// The answer to a version that is not known: in version 0, which every client reads, with the list, so that the
/// client can ask again.
pub(super) fn unsupported(context: &RequestContext) -> Result<Answer, CloseReason> {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: api_keys(),
        ..ApiVersionsResponse::default()
    };
    context.encode_as(ApiKey::ApiVersions, 0, &response)
}

fn api_keys() -> Vec<ApiVersion> {
    let entries = registry::all().iter();
    entries
        .map(|api| ApiVersion {
            api_key: api.key.code(),
            min_version: api.advertised.min,
            max_version: api.advertised.max,
        })
        .collect()
}

/// KIP-511: letters, digits, `.` and `-`, beginning and ending with a letter or digit.
fn is_software(text: &str) -> bool {
    let bytes = text.as_bytes();
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    bytes.len() <= SOFTWARE_BYTES_MAX
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["librdkafka", "apache-kafka-java", "v2.0.2-dirty", "1"] {
            assert!(is_software(good), "{good}");
        }
        for bad in ["", "-x", "x-", "a b", "é", "a_b"] {
            assert!(!is_software(bad), "{bad}");
        }
    }
}
