//! What the broker's configs say of cleaning logs by key.

/// Limits of log cleaning, of the whole broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanerLimits {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.dedupe.buffer.size` in bytes.
    pub map_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor` in percent, 1-99.
    pub map_load_percent: u8,
    /// `log.cleaner.io.buffer.size` in bytes.
    pub io_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub io_bytes_per_second: u64,
    /// `log.cleaner.backoff.ms`.
    pub backoff_ms: i64,
}

/// A part of the whole as percent from 1 to 99: a map needs some room, and some keys.
pub(super) fn load_percent(factor: f64) -> u8 {
    (factor * 100.0).round().clamp(1.0, 99.0) as u8
}

/// A part of the whole, 0 to 1, in millionths.
pub(super) fn millionths(part: f64) -> u32 {
    (part * 1e6).round().clamp(0.0, 1e6) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_whole_numbers_in_range() {
        assert_eq!([0.9, 0.0, 1.0, -3.0, f64::INFINITY].map(load_percent), [90, 1, 99, 1, 99]);
        assert_eq!([0.5, 0.0, 1.0, 0.1].map(millionths), [500_000, 0, 1_000_000, 100_000]);
    }
}
