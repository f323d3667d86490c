//! Operations that a client may carry out (KIP-430), as bits by operation number. Nobody is refused anything yet, so
//! each resource has all operations that it knows.

/// Create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
pub(super) const CLUSTER_OPERATIONS: i32 = bits(&[5, 7, 8, 9, 10, 11, 12]);
/// Read, write, create, delete, alter, describe, describe configs, alter configs.
pub(super) const TOPIC_OPERATIONS: i32 = bits(&[3, 4, 5, 6, 7, 8, 10, 11]);
/// The client did not ask.
pub(super) const NOT_ASKED: i32 = i32::MIN;

const fn bits(operations: &[u8]) -> i32 {
    let (mut bits, mut at) = (0, 0);
    while at < operations.len() {
        bits |= 1 << operations[at];
        at += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_apache_kafka_without_an_authorizer() {
        assert_eq!((CLUSTER_OPERATIONS, TOPIC_OPERATIONS), (8096, 3576));
    }
}
