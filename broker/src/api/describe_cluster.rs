//! DescribeCluster (60), versions 0-2: KIP-700, KIP-919 (endpoint type, 1), KIP-1073 (fenced brokers, 2).

use penstock_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use penstock_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::RequestContext;
use super::operations::{CLUSTER_OPERATIONS, NOT_ASKED};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) async fn handle(
    context: RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refused(ErrorCode::MismatchedEndpointType, message.to_owned());
        }
        other => {
            return refused(ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"));
        }
    }
    let image = context.shard.shared.image.load();
    let (host, port) = &context.shard.shared.advertised;
    let broker = image.broker();
    let asked = request.include_cluster_authorized_operations;
    DescribeClusterResponse {
        cluster_id: image.cluster_id().clone(),
        controller_id: broker.node_id,
        brokers: vec![DescribeClusterBroker {
            broker_id: broker.node_id,
            host: WireString::from(host.as_str()),
            port: i32::from(*port),
            rack: broker.rack.as_deref().map(WireString::from),
            is_fenced: false,
        }],
        cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { NOT_ASKED },
        ..DescribeClusterResponse::default()
    }
}

fn refused(error: ErrorCode, message: String) -> DescribeClusterResponse {
    DescribeClusterResponse {
        error_code: error.code(),
        error_message: Some(WireString::from(message)),
        ..DescribeClusterResponse::default()
    }
}
