//! InitProducerId (22), versions 0-5: KIP-98, KIP-360 (3+), KIP-588, KIP-890. Version 6 (KIP-939) may still change.
//!
//! Idempotent producers get an id and epoch 0. A transactional id is answered as by a broker whose transaction
//! coordinator is not available, which is retriable: transactions are not served yet.

use penstock_core::metadata::{Answer, Command, PRODUCER_ID_BLOCK_LEN};
use penstock_protocol::ErrorCode;
use penstock_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use super::RequestContext;
use crate::shard::Shard;

/// Stands for no producer id, and for no epoch.
const NONE: i64 = -1;

pub(super) async fn handle(
    context: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let refused = |error: ErrorCode| InitProducerIdResponse {
        error_code: error.code(),
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    // A producer names its id and its epoch together, or neither.
    if (request.producer_id == NONE) != (i64::from(request.producer_epoch) == NONE) {
        return refused(ErrorCode::InvalidRequest);
    }
    match &request.transactional_id {
        Some(id) if id.is_empty() => return refused(ErrorCode::InvalidRequest),
        Some(_) => return refused(ErrorCode::CoordinatorNotAvailable),
        None => {}
    }
    match next_producer_id(&context.shard).await {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(error) => refused(error),
    }
}

/// The next id of this shard's block; a new block where that is used up.
async fn next_producer_id(shard: &std::rc::Rc<Shard>) -> Result<i64, ErrorCode> {
    let _turn = shard.producer_ids.turn.acquire(1).await;
    if shard.producer_ids.left.get() == 0 {
        match shard.metadata(Command::AllocateProducerIds).await? {
            Answer::ProducerIds(Some(first)) => {
                shard.producer_ids.next.set(first);
                shard.producer_ids.left.set(PRODUCER_ID_BLOCK_LEN);
            }
            Answer::ProducerIds(None) => return Err(ErrorCode::CoordinatorNotAvailable),
            _ => unreachable!("an answer has the name of its command"),
        }
    }
    let id = shard.producer_ids.next.get();
    shard.producer_ids.next.set(id + 1);
    shard.producer_ids.left.set(shard.producer_ids.left.get() - 1);
    Ok(id)
}
