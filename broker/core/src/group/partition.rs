//! Which partition of `__consumer_offsets` keeps a group.

/// The partition of a group: Java's hash of the id's UTF-16 units, made positive, modulo the number of partitions.
///
/// # Panics
/// If there is no partition.
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(partitions > 0, "the topic has partitions");
    let hash =
        group_id.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the one number without a positive twin becomes 0.
    hash.checked_abs().unwrap_or(0) % partitions
}
