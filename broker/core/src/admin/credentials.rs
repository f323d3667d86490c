//! DescribeUserScramCredentials (50), version 0: KIP-554. No credential can be set yet.

use std::collections::BTreeMap;

use penstock_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use penstock_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};
use penstock_protocol::{ErrorCode, WireString};

/// Credentials of the users named, each once, or of all users: there are none.
pub fn describe_user_scram_credentials(
    request: &DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut named: BTreeMap<&WireString, usize> = BTreeMap::new();
    for user in request.users.iter().flatten() {
        *named.entry(&user.name).or_default() += 1;
    }
    let results = named.into_iter().map(|(user, times)| {
        let error = if times == 1 { ErrorCode::ResourceNotFound } else { ErrorCode::DuplicateResource };
        let message = match times {
            1 => format!("There is no credential of user {user}"),
            _ => format!("A request names each user once: {user}"),
        };
        DescribeUserScramCredentialsResult {
            user: user.clone(),
            error_code: error.code(),
            error_message: Some(WireString::from(message)),
            ..DescribeUserScramCredentialsResult::default()
        }
    });
    DescribeUserScramCredentialsResponse {
        results: results.collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}

#[cfg(test)]
mod tests {
    use penstock_protocol::messages::describe_user_scram_credentials_request::UserName;

    use super::*;

    fn told(users: Option<&[&str]>) -> Vec<(String, ErrorCode)> {
        let users = users.map(|users| users.iter().map(|name| UserName { name: WireString::from(*name) }));
        let request = DescribeUserScramCredentialsRequest { users: users.map(Iterator::collect) };
        let response = describe_user_scram_credentials(&request);
        assert_eq!(response.error_code, 0);
        let results = response.results.iter();
        results.map(|one| (one.user.to_string(), ErrorCode::from_code(one.error_code))).collect()
    }

    #[test]
    fn nobody_has_credentials() {
        assert!(told(None).is_empty() && told(Some(&[])).is_empty());
        let (none, twice) = (ErrorCode::ResourceNotFound, ErrorCode::DuplicateResource);
        assert_eq!(told(Some(&["u", "v", "u"])), [("u".to_owned(), twice), ("v".to_owned(), none)]);
    }
}
