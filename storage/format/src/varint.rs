//! Variable-length integers of records: zigzag, seven bits a byte, low bits first (as Protocol Buffers).

/// Most bytes that a 32-bit varint takes.
pub const VARINT_LEN_MAX: usize = 5;
/// Most bytes that a 64-bit varint takes.
pub const VARLONG_LEN_MAX: usize = 10;

/// Reads a zigzag 32-bit integer; gives it and the bytes it took. `None` if the bytes end within it or it
/// is longer than five bytes. As Kafka's reader does, bits beyond the 32nd of a fifth byte are dropped.
#[inline(always)]
pub fn read_i32(bytes: &[u8]) -> Option<(i32, usize)> {
    let (raw, len) = match *bytes {
        // Nearly every number in a record takes one byte or two.
        [first, ..] if first < 0x80 => (u64::from(first), 1),
        [first, second, ..] if second < 0x80 => (u64::from(first & 0x7f) | u64::from(second) << 7, 2),
        _ => read_raw(bytes, VARINT_LEN_MAX)?,
    };
    let raw = raw as u32;
    Some((((raw >> 1) as i32) ^ -((raw & 1) as i32), len))
}

/// Reads a zigzag 64-bit integer; gives it and the bytes it took. `None` as in [`read_i32`], at ten bytes.
#[inline(always)]
pub fn read_i64(bytes: &[u8]) -> Option<(i64, usize)> {
    let (raw, len) = match *bytes {
        [first, ..] if first < 0x80 => (u64::from(first), 1),
        [first, second, ..] if second < 0x80 => (u64::from(first & 0x7f) | u64::from(second) << 7, 2),
        _ => read_raw(bytes, VARLONG_LEN_MAX)?,
    };
    Some((((raw >> 1) as i64) ^ -((raw & 1) as i64), len))
}

#[inline(never)]
fn read_raw(bytes: &[u8], len_max: usize) -> Option<(u64, usize)> {
    let mut raw = 0u64;
    for (at, &byte) in bytes.iter().take(len_max).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((raw, at + 1));
        }
    }
    None
}

/// Appends a zigzag 32-bit integer.
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_raw(out, u64::from(((value << 1) ^ (value >> 31)) as u32));
}

/// Appends a zigzag 64-bit integer.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_raw(out, zigzag(value));
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn write_raw(out: &mut Vec<u8>, mut raw: u64) {
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(small: i32, large: i64, shift in 0u32..64) {
            let large = large >> shift;
            let mut out = Vec::new();
            write_i32(&mut out, small);
            prop_assert_eq!(read_i32(&out), Some((small, out.len())));
            for cut in 0..out.len() {
                prop_assert_eq!(read_i32(&out[..cut]), None);
            }
            out.clear();
            write_i64(&mut out, large);
            prop_assert_eq!(read_i64(&out), Some((large, out.len())));
            for cut in 0..out.len() {
                prop_assert_eq!(read_i64(&out[..cut]), None);
            }
        }
    }

    #[test]
    fn known_encodings() {
        let cases: [(i64, &[u8]); 8] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in cases {
            assert_eq!(read_i64(bytes), Some((value, bytes.len())));
            assert_eq!(read_i32(bytes), Some((value as i32, bytes.len())));
        }
        assert_eq!(read_i32(&[0x80; 5]), None);
        assert_eq!(read_i64(&[0x80; 10]), None);
        assert_eq!(
            read_i64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            Some((i64::MIN, 10))
        );
    }
}
