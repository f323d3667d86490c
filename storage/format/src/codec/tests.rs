//! Codecs against themselves, against their libraries' other modes, and against hostile input.

use proptest::prelude::*;

use super::*;

const MAX: usize = 1 << 20;

/// Bytes with repetitions, so that codecs find something to do.
fn plain() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(any::<u8>(), 0..400), 1usize..300).prop_map(|(unit, times)| unit.repeat(times))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_compressed_comes_back(plain in plain()) {
        for compression in Compression::ALL {
            let packed = compress(compression, &plain, None).unwrap();
            prop_assert_eq!(&decompress(compression, &packed, MAX).unwrap(), &plain);
            prop_assert_eq!(&decompress(compression, &packed, plain.len()).unwrap(), &plain);
            if let Some(max) = plain.len().checked_sub(1) {
                prop_assert_eq!(decompress(compression, &packed, max), Err(CodecError::TooLarge { max }));
            }
        }
    }

    #[test]
    fn truncated_and_mutated_input_gives_a_value_or_an_error(
        plain in plain(),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for compression in Compression::ALL {
            let mut packed = compress(compression, &plain, None).unwrap();
            if packed.is_empty() {
                continue;
            }
            let _ = decompress(compression, &packed[..cut.index(packed.len())], MAX);
            for (at, xor) in &flips {
                let at = at.index(packed.len());
                packed[at] ^= xor;
            }
            if let Ok(out) = decompress(compression, &packed, MAX) {
                prop_assert!(out.len() <= MAX);
            }
        }
    }

    #[test]
    fn lz4_frames_of_other_writers_are_read(plain in plain(), linked: bool, checksums: bool) {
        use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
        let info = FrameInfo::new()
            .block_mode(if linked { BlockMode::Linked } else { BlockMode::Independent })
            .block_size(BlockSize::Max64KB)
            .block_checksums(checksums)
            .content_checksum(checksums)
            .content_size(checksums.then_some(plain.len() as u64));
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&plain).unwrap();
        let packed = encoder.finish().unwrap();
        prop_assert_eq!(decompress(Compression::Lz4, &packed, MAX).unwrap(), plain);
    }
}

#[test]
fn raw_snappy_and_joined_xerial_streams_are_read() {
    let plain = b"raw raw raw raw raw raw".repeat(10);
    let raw = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert_eq!(decompress(Compression::Snappy, &raw, MAX).unwrap(), plain);
    let joined = compress(Compression::Snappy, &plain, None).unwrap().repeat(2);
    assert_eq!(decompress(Compression::Snappy, &joined, MAX).unwrap(), plain.repeat(2));
}

#[test]
fn several_gzip_members_and_zstd_frames_are_read() {
    let plain = b"member".repeat(100);
    for compression in [Compression::Gzip, Compression::Zstd] {
        let joined = compress(compression, &plain, None).unwrap().repeat(2);
        assert_eq!(decompress(compression, &joined, MAX).unwrap(), plain.repeat(2));
    }
}

#[test]
fn levels_are_taken() {
    let plain = (0..200_000u32).flat_map(|n| (n % 1000).to_le_bytes()).collect::<Vec<_>>();
    for (compression, low, high) in [(Compression::Gzip, 1, 9), (Compression::Zstd, 1, 19)] {
        let fast = compress(compression, &plain, Some(low)).unwrap();
        let small = compress(compression, &plain, Some(high)).unwrap();
        assert!(small.len() < fast.len(), "{}: {} against {}", compression.name(), small.len(), fast.len());
        assert_eq!(decompress(compression, &small, MAX).unwrap(), plain);
    }
}
