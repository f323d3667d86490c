//! A member of a classic group.

use bytes::Bytes;
use penstock_protocol::WireString;
use penstock_protocol::messages::JoinGroupRequest;
use penstock_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use crate::coordinator::RequestId;

/// A way of working together that a member offers, best first, with what it says about itself in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: WireString,
    pub(super) metadata: Bytes,
}

/// A JoinGroup or SyncGroup that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    pub(super) to: RequestId,
    pub(super) version: i16,
}

/// What a JoinGroup says about its member, in memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    pub(super) protocols: Vec<Protocol>,
}

impl Offer {
    pub(super) fn of(request: &JoinGroupRequest, version: i16) -> Offer {
        let own = |protocol: &JoinGroupRequestProtocol| Protocol {
            name: protocol.name.detached(),
            metadata: Bytes::copy_from_slice(&protocol.metadata),
        };
        let session_timeout_ms = request.session_timeout_ms;
        // Version 0 knows one timeout for both.
        let rebalance_timeout_ms =
            if version == 0 { session_timeout_ms } else { request.rebalance_timeout_ms };
        let protocols = request.protocols.iter().map(own).collect();
        Offer { rebalance_timeout_ms, session_timeout_ms, protocols }
    }

    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        let found = self.protocols.iter().find(|offered| offered.name == *protocol);
        found.map(|offered| &offered.metadata)
    }
}

/// A member of a classic group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<WireString>,
    pub(super) client_id: WireString,
    pub(super) client_host: WireString,
    pub(super) offer: Offer,
    pub(super) assignment: Bytes,
    /// Only [`super::classic::ClassicGroup`] parks and takes joins: it counts them.
    pub(super) parked_join: Option<Parked>,
    pub(super) parked_sync: Option<Parked>,
    /// It has not been answered its first JoinGroup yet, and so cannot send heartbeats.
    pub(super) is_new: bool,
    /// It comes from the log and has not been heard of since: if it is static, its newest id may be one that the log
    /// does not know.
    pub(super) is_hearsay: bool,
}

impl Member {
    /// Whether a heartbeat is not due, because the member waits for us.
    pub(super) fn waits_for_us(&self) -> bool {
        !self.is_new && (self.parked_join.is_some() || self.parked_sync.is_some())
    }
}
