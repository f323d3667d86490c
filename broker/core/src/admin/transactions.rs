//! ListTransactions (66), versions 0-2, and DescribeTransactions (65), version 0: KIP-664, KIP-994 (by duration, 1),
//! KIP-1152 (by a pattern, 2). No transaction can be begun yet, and no node coordinates any.

use std::collections::BTreeSet;

use penstock_protocol::ErrorCode;
use penstock_protocol::messages::describe_transactions_response::TransactionState;
use penstock_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ListTransactionsResponse,
};

/// States of a transaction, as Apache Kafka names them.
const STATES: [&str; 8] = [
    "CompleteAbort",
    "CompleteCommit",
    "Dead",
    "Empty",
    "Ongoing",
    "PrepareAbort",
    "PrepareCommit",
    "PrepareEpochFence",
];

/// Transactions that pass the filters: none. States that do not exist are told once each, and a pattern that is none is refused.
pub fn list_transactions(request: &ListTransactionsRequest) -> ListTransactionsResponse {
    // Its syntax alone is read, in time that its length bounds.
    let is_pattern = |text: &str| regex_syntax::ast::parse::Parser::new().parse(text).is_ok();
    if request.transactional_id_pattern.as_ref().is_some_and(|text| !is_pattern(text)) {
        return ListTransactionsResponse {
            error_code: ErrorCode::InvalidRegularExpression.code(),
            ..ListTransactionsResponse::default()
        };
    }
    let mut seen = BTreeSet::new();
    let unknown =
        request.state_filters.iter().filter(|state| !STATES.contains(&state.as_str()) && seen.insert(*state));
    ListTransactionsResponse {
        unknown_state_filters: unknown.cloned().collect(),
        ..ListTransactionsResponse::default()
    }
}

/// Says of each transactional id that another node coordinates it, as a broker does that coordinates none.
pub fn describe_transactions(request: &DescribeTransactionsRequest) -> DescribeTransactionsResponse {
    let states = request.transactional_ids.iter().map(|id| {
        let error = if id.is_empty() { ErrorCode::InvalidRequest } else { ErrorCode::NotCoordinator };
        TransactionState {
            error_code: error.code(),
            transactional_id: id.clone(),
            ..TransactionState::default()
        }
    });
    DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..DescribeTransactionsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use penstock_protocol::WireString;

    use super::*;

    #[test]
    fn filters_are_read_though_nothing_passes() {
        let filters = ["Ongoing", "Tired", "ongoing", "Tired"].map(WireString::from_static).to_vec();
        let asked = |pattern: Option<&'static str>| ListTransactionsRequest {
            state_filters: filters.clone(),
            transactional_id_pattern: pattern.map(WireString::from_static),
            ..ListTransactionsRequest::default()
        };
        for pattern in [None, Some(""), Some("a.*[0-9]{3}")] {
            let told = list_transactions(&asked(pattern));
            assert_eq!((told.error_code, told.transaction_states.len()), (0, 0));
            assert_eq!(told.unknown_state_filters, ["Tired", "ongoing"].map(WireString::from_static));
        }
        let refused = list_transactions(&asked(Some("(")));
        assert_eq!(refused.error_code, ErrorCode::InvalidRegularExpression.code());
    }

    #[test]
    fn no_id_is_coordinated_here() {
        let transactional_ids = ["t", ""].map(WireString::from_static).to_vec();
        let told = describe_transactions(&DescribeTransactionsRequest { transactional_ids });
        let codes: Vec<_> = told.transaction_states.iter().map(|state| state.error_code).collect();
        assert_eq!(codes, [ErrorCode::NotCoordinator.code(), ErrorCode::InvalidRequest.code()]);
    }
}
