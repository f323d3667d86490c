//! What a verified record holds: a pure function of run, partition and sequence, so that any reader can say whether a
//! record is whole without having kept a copy.
//!
//! Value: run id u64, partition i32, sequence u64 (big-endian), then pseudo-random bytes to a length that is itself a
//! function of the three. Lengths vary, so that batches end anywhere in a disk block. Key: 8 bytes of the same function.

/// Bytes ahead of the pseudo-random part; also the smallest record size that can be verified.
pub const VALUE_HEADER_LEN: usize = 20;

/// Names one record of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordName {
    /// The run that wrote it.
    pub run_id: u64,
    /// The partition it was sent to.
    pub partition: i32,
    /// Its number among the run's records of this partition, from 0.
    pub sequence: u64,
}

impl RecordName {
    /// Reads the name that a value claims; none when it is too short to be ours.
    pub fn read(value: &[u8]) -> Option<RecordName> {
        let (run_id, rest) = value.split_first_chunk::<8>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, _) = rest.split_first_chunk::<8>()?;
        Some(RecordName {
            run_id: u64::from_be_bytes(*run_id),
            partition: i32::from_be_bytes(*partition),
            sequence: u64::from_be_bytes(*sequence),
        })
    }

    /// The record's key.
    pub fn key(&self) -> [u8; 8] {
        self.seed().rotate_left(17).to_be_bytes()
    }

    /// Writes the record's value into `out` (cleared first); at most `size_max` bytes, at least [`VALUE_HEADER_LEN`].
    pub fn write_value(&self, size_max: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.run_id.to_be_bytes());
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        let len = self.value_len(size_max);
        let mut state = self.seed();
        while out.len() < len {
            let word = next(&mut state).to_le_bytes();
            let take = (len - out.len()).min(word.len());
            out.extend_from_slice(&word[..take]);
        }
    }

    /// How many records the batch that begins with this record has: 1 to `records_max`.
    pub fn batch_records(&self, records_max: u64) -> u64 {
        let mut state = self.seed() ^ 0xb5ad_4ece_da1c_e2a9;
        1 + next(&mut state) % records_max.max(1)
    }

    fn value_len(&self, size_max: usize) -> usize {
        let room = size_max.saturating_sub(VALUE_HEADER_LEN) as u64;
        let mut state = self.seed() ^ 0x9e6c_63d0_676a_9a99;
        VALUE_HEADER_LEN + (next(&mut state) % (room + 1)) as usize
    }

    fn seed(&self) -> u64 {
        let mut state = self.run_id ^ (self.partition as u64).rotate_left(40) ^ self.sequence.rotate_left(7);
        next(&mut state)
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_themselves_and_differ() {
        let name = RecordName { run_id: 7, partition: 3, sequence: 99 };
        let mut value = Vec::new();
        name.write_value(1000, &mut value);
        assert!((VALUE_HEADER_LEN..=1000).contains(&value.len()));
        assert_eq!(RecordName::read(&value), Some(name));
        let mut other = Vec::new();
        RecordName { sequence: 100, ..name }.write_value(1000, &mut other);
        assert_ne!(value[VALUE_HEADER_LEN..], other[VALUE_HEADER_LEN..]);
        assert_eq!(RecordName::read(&value[..19]), None);
    }

    #[test]
    fn lengths_cover_the_range() {
        let lens: Vec<usize> = (0..2000)
            .map(|sequence| RecordName { run_id: 1, partition: 0, sequence }.value_len(100))
            .collect();
        assert_eq!(lens.iter().min(), Some(&VALUE_HEADER_LEN));
        assert_eq!(lens.iter().max(), Some(&100));
        // A size below the header is the header alone.
        assert_eq!(RecordName { run_id: 1, partition: 0, sequence: 5 }.value_len(3), VALUE_HEADER_LEN);
    }
}
