//! DescribeClientQuotas (48), versions 0-1: KIP-546, KIP-612 (quotas of addresses). No quota can be set yet.

use std::collections::BTreeSet;

use penstock_protocol::messages::describe_client_quotas_request::ComponentData;
use penstock_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use penstock_protocol::{ErrorCode, WireString};

use crate::metadata::ApiError;

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

/// The entity of this name.
const EXACT: i8 = 0;
/// The default entity.
const DEFAULT: i8 = 1;
/// Any entity of the type.
const SPECIFIED: i8 = 2;

/// Quotas of the entities that the filter names: none. A filter that Apache Kafka refuses is refused.
pub fn describe_client_quotas(request: &DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    match check(&request.components) {
        Ok(()) => DescribeClientQuotasResponse {
            entries: Some(Vec::new()),
            ..DescribeClientQuotasResponse::default()
        },
        Err(error) => DescribeClientQuotasResponse {
            error_code: error.code.code(),
            error_message: error.wire_message(),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        },
    }
}

fn check(components: &[ComponentData]) -> Result<(), ApiError> {
    let mut types = BTreeSet::new();
    for component in components {
        let name = component.entity_type.as_str();
        if name.is_empty() {
            return Err(invalid("Invalid empty entity type."));
        }
        if !types.insert(name) {
            return Err(invalid(format!("Entity type {name} cannot appear more than once in the filter.")));
        }
        if ![USER, CLIENT_ID, IP].contains(&name) {
            let message = format!("Unsupported entity type {name}");
            return Err(ApiError::new(ErrorCode::UnsupportedVersion, message));
        }
        check_match(component.match_type, component.r#match.as_ref())?;
    }
    if types.contains(IP) && types.len() > 1 {
        return Err(invalid("An address cannot be combined with a user or a client id in one filter."));
    }
    Ok(())
}

fn check_match(kind: i8, name: Option<&WireString>) -> Result<(), ApiError> {
    match (kind, name) {
        (EXACT, Some(_)) | (DEFAULT | SPECIFIED, None) => Ok(()),
        (EXACT, None) => Err(invalid("An exact match needs a name to match.")),
        (DEFAULT | SPECIFIED, Some(_)) => Err(invalid("Only an exact match has a name to match.")),
        _ => Err(invalid(format!("Unknown match type {kind}"))),
    }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(components: &[(&str, i8, Option<&str>)]) -> (ErrorCode, bool) {
        let component = |(entity_type, match_type, name): &(&str, i8, Option<&str>)| ComponentData {
            entity_type: WireString::from(*entity_type),
            match_type: *match_type,
            r#match: name.map(WireString::from),
        };
        let components = components.iter().map(component).collect();
        let request = DescribeClientQuotasRequest { components, ..DescribeClientQuotasRequest::default() };
        let response = describe_client_quotas(&request);
        (ErrorCode::from_code(response.error_code), response.entries.is_some_and(|told| told.is_empty()))
    }

    #[test]
    fn filters_that_make_sense_find_nothing() {
        let good: [&[_]; 4] = [
            &[],
            &[(USER, EXACT, Some("u")), (CLIENT_ID, DEFAULT, None)],
            &[(USER, SPECIFIED, None)],
            &[(IP, EXACT, Some("not an address"))],
        ];
        for filter in good {
            assert_eq!(asked(filter), (ErrorCode::None, true), "{filter:?}");
        }
    }

    #[test]
    fn filters_that_make_none_are_refused() {
        let bad: [&[_]; 7] = [
            &[("", EXACT, Some("x"))],
            &[(USER, EXACT, None)],
            &[(USER, DEFAULT, Some("u"))],
            &[(USER, SPECIFIED, Some("u"))],
            &[(USER, 3, None)],
            &[(USER, EXACT, Some("u")), (USER, DEFAULT, None)],
            &[(IP, SPECIFIED, None), (USER, SPECIFIED, None)],
        ];
        for filter in bad {
            assert_eq!(asked(filter), (ErrorCode::InvalidRequest, false), "{filter:?}");
        }
        assert_eq!(asked(&[("planet", EXACT, Some("x"))]), (ErrorCode::UnsupportedVersion, false));
    }
}
