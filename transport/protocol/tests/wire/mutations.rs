//! Vectors with random damage give a value or an error, and never take more memory than their length justifies.
//!
//! The seed is fixed; `PENSTOCK_MUTATIONS` sets how many mutants each vector gets.

use bytes::Bytes;
use oorandom::Rand32;
use penstock_protocol::Limits;

use crate::allocation::peak_of;
use crate::codec::Codec;
use crate::corpus::vectors;

/// Bytes that decoding may hold at a time: array memory by the limits, and two small allocations that turn the input
/// into shared memory.
pub(crate) fn memory_max(len: usize) -> usize {
    Limits::DEFAULT.memory_base + Limits::DEFAULT.memory_per_byte * len + 128
}

#[test]
fn mutants_never_panic_nor_allocate_beyond_the_bound() {
    let count =
        std::env::var("PENSTOCK_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000);
    let mut random = Rand32::new(20_260_701);
    let (mut valid, mut invalid) = (0u64, 0u64);
    let bodies: Vec<Bytes> = vectors().into_iter().map(|vector| vector.body).collect();
    for vector in vectors() {
        let codec = Codec::named(&vector.message);
        for _ in 0..count {
            let other = &bodies[random.rand_range(0..bodies.len() as u32) as usize];
            let mutant = Bytes::from(mutated(&vector.body, other, &mut random));
            let len = mutant.len();
            let (result, peak) = peak_of(|| (codec.check)(mutant.clone(), vector.version));
            assert!(
                peak <= memory_max(len),
                "{peak} bytes for {len} of {} {}",
                vector.message,
                vector.version
            );
            match result {
                // What decodes must encode too, and come back the same.
                Ok(()) => {
                    valid += 1;
                    (codec.decode)(mutant, vector.version).unwrap();
                }
                Err(_) => invalid += 1,
            }
        }
    }
    assert!(valid > invalid / 20, "mutants are not just noise: {valid} valid, {invalid} invalid");
}

/// One to four random changes.
fn mutated(body: &[u8], other: &[u8], random: &mut Rand32) -> Vec<u8> {
    let mut bytes = body.to_vec();
    for _ in 0..random.rand_range(1..5) {
        let at = random.rand_range(0..bytes.len() as u32 + 1) as usize;
        match random.rand_range(0..8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.rand_u32() as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] ^= 1 << random.rand_range(0..8),
            4 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.rand_range(0..5) as usize],
            // A large number, as a count or a length.
            5 if at + 4 <= bytes.len() => {
                let number = i32::MAX >> random.rand_range(0..31);
                bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            // A large number of the compact kind.
            6 => drop(bytes.splice(
                at..at,
                [0xff, 0xff, 0xff, 0xff, 0x0f].into_iter().skip(random.rand_range(0..5) as usize),
            )),
            // Bytes of another message.
            _ => {
                let from = random.rand_range(0..other.len() as u32 + 1) as usize;
                bytes.splice(at..at, other[from..].iter().copied().take(64));
            }
        }
    }
    bytes
}
