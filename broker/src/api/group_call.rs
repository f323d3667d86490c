//! What the handlers of group APIs have in common.

use penstock_core::group::{Caller, GroupCall, GroupRequest};
use penstock_protocol::WireString;

use super::RequestContext;

/// The request with who asks.
pub(super) fn call(context: &RequestContext, request: GroupRequest) -> GroupCall {
    let caller = Caller {
        version: context.version,
        client_id: context.client_id.clone().unwrap_or_default(),
        // As Java prints an address.
        client_host: WireString::from(format!("/{}", context.connection.peer().ip().to_canonical())),
        fresh_id: context.shard.groups.fresh_id(),
    };
    GroupCall { caller, request }
}

/// Asks the group's coordinator and takes the answer of the request's name.
macro_rules! coordinate {
    ($context:expr, $group_id:expr, $name:ident($request:expr)) => {{
        let call =
            $crate::api::group_call::call(&$context, penstock_core::group::GroupRequest::$name($request));
        match $context.shard.coordinate($group_id, call).await {
            penstock_core::group::GroupResponse::$name(response) => response,
            _ => unreachable!("an answer has the name of its request"),
        }
    }};
}
pub(super) use coordinate;
