//! What handlers do before and after they ask a coordinator: which groups a request names, whether topics exist, what older
//! versions look like. Pure functions over messages and the metadata image.

pub mod find_coordinator;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;

#[cfg(test)]
mod tests;

/// Operations on a group as DescribeGroups tells them where nobody is refused: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS,
/// ALTER_CONFIGS, a bit each by the operation's number.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;
