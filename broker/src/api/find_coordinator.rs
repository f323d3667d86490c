//! FindCoordinator (10), versions 0-6: KIP-98 (key types, 1), KIP-699 (several keys, 4), KIP-932 (shares, 6).
//!
//! No coordinator is served yet, and each key is answered so, retriably. The API is served all the same: librdkafka takes
//! a broker without it for one of Kafka 0.8, and then sends batches that were to be lz4 without compression.

use penstock_protocol::messages::find_coordinator_response::Coordinator;
use penstock_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::RequestContext;

/// The version from which a request names several keys.
const KEYS_VERSION: i16 = 4;
/// Stands for no broker and for no port.
const NOBODY: i32 = -1;

pub(super) async fn handle(
    context: RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let error_code = ErrorCode::CoordinatorNotAvailable.code();
    let message =
        WireString::from_static("groups and transactions are not served by this version of the broker");
    if context.version < KEYS_VERSION {
        return FindCoordinatorResponse {
            error_code,
            error_message: Some(message),
            node_id: NOBODY,
            port: NOBODY,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| Coordinator {
        key,
        node_id: NOBODY,
        port: NOBODY,
        error_code,
        error_message: Some(message.clone()),
        ..Coordinator::default()
    });
    FindCoordinatorResponse { coordinators: coordinators.collect(), ..FindCoordinatorResponse::default() }
}
