//! ListConfigResources (74), versions 0-1: KIP-714 (as ListClientMetricsResources, 0), KIP-1142 (every type, 1).

use std::collections::BTreeSet;

use penstock_protocol::messages::list_config_resources_response::ConfigResource;
use penstock_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use penstock_protocol::{ErrorCode, WireString};

use crate::metadata::{MetadataImage, resource_type};

/// From this version on a request says of which types.
const TYPES_FROM: i16 = 1;

/// Resources that have configs of their own, of the types asked for, or of all types. There are no subscriptions to
/// client metrics, no configs of groups, and no loggers whose level could be set.
pub fn list_config_resources(
    request: &ListConfigResourcesRequest,
    version: i16,
    image: &MetadataImage,
) -> ListConfigResourcesResponse {
    let asked: BTreeSet<i8> = request.resource_types.iter().copied().collect();
    if !asked.iter().all(|kind| resource_type::is_known(*kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..ListConfigResourcesResponse::default()
        };
    }
    let wanted = |kind| version >= TYPES_FROM && (asked.is_empty() || asked.contains(&kind));
    let mut config_resources = Vec::new();
    if wanted(resource_type::TOPIC) {
        let topics = image.topics().map(|topic| resource(resource_type::TOPIC, topic.name.clone()));
        config_resources.extend(topics);
    }
    if wanted(resource_type::BROKER) {
        let name = WireString::from(image.broker().node_id.to_string());
        config_resources.push(resource(resource_type::BROKER, name));
    }
    ListConfigResourcesResponse { config_resources, ..ListConfigResourcesResponse::default() }
}

fn resource(resource_type: i8, resource_name: WireString) -> ConfigResource {
    ConfigResource { resource_name, resource_type }
}
