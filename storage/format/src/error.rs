//! Errors of reading the frame of a batch.

/// Why bytes are not a well-framed batch of format v2. Always the fault of whoever wrote the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or its length field asks for.
    #[error("batch truncated: {needed} bytes needed, {available} there")]
    Truncated {
        /// Bytes that a whole batch would take, as far as known.
        needed: usize,
        /// Bytes that were there.
        available: usize,
    },
    /// The length field cannot hold even the header.
    #[error("batch length {0} is too small for a batch header")]
    InvalidLength(i32),
    /// Message formats 0 and 1 (no longer accepted since Kafka 4), or a magic never defined.
    #[error("message format {0} is not supported")]
    UnsupportedMagic(i8),
    /// Attribute bits name no codec.
    #[error("unknown compression codec {0}")]
    UnknownCompression(u8),
    /// More batches than the caller allows.
    #[error("more than {max} batches")]
    TooManyBatches {
        /// The caller's bound.
        max: usize,
    },
}
