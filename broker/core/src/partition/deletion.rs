//! DeleteRecords (KIP-107): which offset becomes the first.

use super::{LogView, PartitionFailure};

/// In a request, the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// The offset before which records are deleted when a client asks for `asked`.
///
/// # Errors
/// `OutOfRange` below 0 and beyond the high watermark: what is not committed is not deleted.
pub fn deletion_offset(view: &LogView, asked: i64) -> Result<i64, PartitionFailure> {
    let offset = if asked == HIGH_WATERMARK { view.high_watermark } else { asked };
    if (0..=view.high_watermark).contains(&offset) { Ok(offset) } else { Err(PartitionFailure::OutOfRange) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_the_high_watermark_and_no_further() {
        let view = LogView {
            leader_epoch: 0,
            epoch_start_offset: 0,
            log_start_offset: 3,
            log_start_epoch: 0,
            last_stable_offset: 5,
            high_watermark: 8,
            log_end_offset: 9,
        };
        let cases = [(-1, Some(8)), (0, Some(0)), (3, Some(3)), (8, Some(8)), (9, None), (-2, None)];
        for (asked, wanted) in cases {
            assert_eq!(
                deletion_offset(&view, asked),
                wanted.ok_or(PartitionFailure::OutOfRange),
                "asked for {asked}"
            );
        }
    }
}
