//! `GET /connections`: the open connections as JSON, a bounded page at a time.

use serde_json::{Value, json};

use crate::network::registry::{ConnectionSummary, Page, Registry};

/// Connections of one page at most, and if nothing else is asked for.
const PAGE_MAX: usize = 1000;

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    after: u64,
    limit: usize,
}

impl Asked {
    /// Reads `after=<id>&limit=<count>`, each of which may be missing.
    ///
    /// # Errors
    /// A sentence for whoever asked for something else.
    pub(super) fn parse(query: &str) -> Result<Asked, String> {
        let mut asked = Asked { after: 0, limit: PAGE_MAX };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let number: u64 =
                value.parse().map_err(|_| format!("'{key}' takes a number from 0 on, not '{value}'\n"))?;
            match key {
                "after" => asked.after = number,
                "limit" => asked.limit = usize::try_from(number).unwrap_or(PAGE_MAX).min(PAGE_MAX),
                _ => return Err(format!("'{key}' is not known here; 'after' and 'limit' are\n")),
            }
        }
        Ok(asked)
    }
}

/// The page.
pub(super) fn render(registry: &Registry, asked: Asked) -> String {
    let Page { open, connections, next_after } = registry.page(asked.after, asked.limit);
    let connections: Vec<Value> = connections.iter().map(entry).collect();
    let mut page = json!({ "open": open, "connections": connections, "next_after": next_after }).to_string();
    page.push('\n');
    page
}

fn entry(connection: &ConnectionSummary) -> Value {
    let software = connection.software.as_ref();
    json!({
        "id": connection.id,
        "peer": connection.peer.to_string(),
        "shard": connection.shard,
        "opened_at_ms": connection.opened_at_ms,
        "client_id": connection.client_id,
        "software_name": software.map(|(name, _)| name),
        "software_version": software.map(|(_, version)| version),
        "bytes_in": connection.bytes_in,
        "bytes_out": connection.bytes_out,
        "requests": connection.requests,
        "in_flight": connection.in_flight,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn queries() {
        assert_eq!(Asked::parse(""), Ok(Asked { after: 0, limit: PAGE_MAX }));
        assert_eq!(Asked::parse("limit=5&after=7"), Ok(Asked { after: 7, limit: 5 }));
        assert_eq!(Asked::parse("limit=999999999999"), Ok(Asked { after: 0, limit: PAGE_MAX }));
        for wrong in ["limit", "limit=-1", "after=x", "before=1"] {
            assert!(Asked::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn whatever_a_client_calls_itself_is_json() {
        let registry = Arc::new(Registry::default());
        let held = registry.enter(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9)), 2, 5).unwrap();
        held.note_client_id(Some("\"}\n\u{0}é"));
        let page: Value = serde_json::from_str(&render(&registry, Asked::parse("").unwrap())).unwrap();
        let wanted = json!({
            "open": 1,
            "next_after": null,
            "connections": [{
                "id": 1, "peer": "[::1]:9", "shard": 2, "opened_at_ms": 5, "client_id": "\"}\n\u{0}é",
                "software_name": null, "software_version": null,
                "bytes_in": 0, "bytes_out": 0, "requests": 0, "in_flight": 0,
            }],
        });
        assert_eq!(page, wanted);
    }
}
