//! Bounds of decoding.

/// How much one decoder may build. The nesting depth needs no limit here: the schema cannot express recursion, and the
/// build refuses structures nested deeper than eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most elements of arrays, all arrays of the message together.
    pub elements_max: usize,
    /// Bytes of array memory that any input may take.
    pub memory_base: usize,
    /// Further bytes of array memory for each byte of input.
    pub memory_per_byte: usize,
}

impl Limits {
    /// 8 million elements; 64 KiB of array memory and 16 bytes more for each byte of input. Real messages take less
    /// than 8 bytes for each byte (an element with a name of ten letters takes about 4).
    pub const DEFAULT: Limits = Limits { elements_max: 8 << 20, memory_base: 64 << 10, memory_per_byte: 16 };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}
