//! CRC-32C arithmetic: what appending bytes does to a crc, without the bytes.
//!
//! A crc is a polynomial over GF(2) modulo the Castagnoli polynomial, lowest power in the highest bit.
//! Appending `n` bytes multiplies it by x^8n. Taken from the mathematics; zlib's `crc32_combine` works alike.

/// The Castagnoli polynomial less x^32, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
/// x^(8 * 2^k) for every bit k of a length.
const POWERS: [u32; usize::BITS as usize] = powers();

/// Multiplies by x^8n: the share that bits ahead of `len` further bytes have in a crc.
pub(crate) fn shift(crc: u32, len: usize) -> u32 {
    POWERS
        .iter()
        .enumerate()
        .filter(|(bit, _)| len >> bit & 1 == 1)
        .fold(crc, |product, (_, &power)| multiply(product, power))
}

const fn powers() -> [u32; usize::BITS as usize] {
    let mut powers = [ONE >> 8; usize::BITS as usize]; // x^8
    let mut bit = 1;
    while bit < powers.len() {
        powers[bit] = multiply(powers[bit - 1], powers[bit - 1]);
        bit += 1;
    }
    powers
}

/// The product of two polynomials, by shift and add.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        // Branch-free: the bits are as good as random.
        product ^= b & 0u32.wrapping_sub(a >> bit & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_shifted_crc_and_that_of_the_rest_make_the_whole(
            head in prop::collection::vec(any::<u8>(), 0..60),
            rest in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let whole = crc32c::crc32c_append(crc32c::crc32c(&head), &rest);
            prop_assert_eq!(whole, shift(crc32c::crc32c(&head), rest.len()) ^ crc32c::crc32c(&rest));
        }
    }
}
