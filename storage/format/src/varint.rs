//! Variable-length integers of records: zigzag, seven bits a byte, low bits first (as Protocol Buffers).

/// Most bytes that a 32-bit varint takes.
pub const VARINT_LEN_MAX: usize = 5;
/// Most bytes that a 64-bit varint takes.
pub const VARLONG_LEN_MAX: usize = 10;

/// Reads a zigzag 32-bit integer; gives it and the bytes it took. `None` if the bytes end within it or it
/// is longer than five bytes. As Kafka's reader does, bits beyond the 32nd of a fifth byte are dropped.
#[inline]
pub fn read_i32(bytes: &[u8]) -> Option<(i32, usize)> {
    let mut raw = 0u32;
    for (at, &byte) in bytes.iter().take(VARINT_LEN_MAX).enumerate() {
        raw |= u32::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((((raw >> 1) as i32) ^ -((raw & 1) as i32), at + 1));
        }
    }
    None
}

/// Reads a zigzag 64-bit integer; gives it and the bytes it took. `None` as in [`read_i32`], at ten bytes.
#[inline]
pub fn read_i64(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut raw = 0u64;
    for (at, &byte) in bytes.iter().take(VARLONG_LEN_MAX).enumerate() {
        raw |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((((raw >> 1) as i64) ^ -((raw & 1) as i64), at + 1));
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

/// Bytes that [`write_i64`] takes, and [`write_i32`] for the same number.
pub fn len_i64(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
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
