//! Little-endian writing to and bounded reading from byte slices, for the engine's own formats.

/// Crc32c of all bytes but the four at `position`, where it stands.
pub(crate) fn crc_around(bytes: &[u8], position: usize) -> u32 {
    let (head, rest) = bytes.split_at(position.min(bytes.len()));
    crc32c::crc32c_append(crc32c::crc32c(head), rest.get(4..).unwrap_or_default())
}

/// Reads values off the front of a slice; every read says `None` beyond the end.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|b| b[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// A UTF-8 string behind its length in two bytes.
    pub(crate) fn string(&mut self) -> Option<&'a str> {
        let len = self.u16()?;
        std::str::from_utf8(self.bytes(usize::from(len))?).ok()
    }

    /// A count of things that take at least `each` bytes, refused if the rest cannot hold them.
    pub(crate) fn count(&mut self, each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(each)? <= self.rest.len()).then_some(count)
    }
}

/// Appends a string behind its length in two bytes. Names are bounded far below 64 KiB.
pub(crate) fn put_string(out: &mut Vec<u8>, string: &str) {
    let len = u16::try_from(string.len()).expect("names are at most 249 bytes");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(string.as_bytes());
}
