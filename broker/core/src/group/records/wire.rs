//! The primitive types of the two record forms: the older with two-byte lengths, the flexible one with varints.

use bytes::{BufMut, Bytes, BytesMut};
use penstock_protocol::{Uuid, WireString};

use super::RecordError;

/// Longest name in the older form.
pub(in super::super) const NAME_LEN_MAX: usize = i16::MAX as usize;

pub(super) struct Writer {
    bytes: BytesMut,
    flexible: bool,
}

impl Writer {
    /// A writer that has put `version` first.
    pub(super) fn new(version: i16, flexible: bool) -> Writer {
        let mut bytes = BytesMut::with_capacity(128);
        bytes.put_i16(version);
        Writer { bytes, flexible }
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub(super) fn string(&mut self, value: &str) {
        if self.flexible {
            self.varint(length(value.len() + 1));
        } else {
            assert!(value.len() <= NAME_LEN_MAX, "names are checked before they get here");
            self.bytes.put_i16(value.len() as i16);
        }
        self.bytes.put_slice(value.as_bytes());
    }

    pub(super) fn nullable_string(&mut self, value: Option<&WireString>) {
        match value {
            Some(value) => self.string(value),
            None if self.flexible => self.varint(0),
            None => self.bytes.put_i16(-1),
        }
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.put_slice(value);
    }

    pub(super) fn count(&mut self, count: usize) {
        if self.flexible {
            self.varint(length(count + 1));
        } else {
            self.bytes.put_u32(length(count));
        }
    }

    /// The tagged fields of the flexible form: at most a topic id, under tag 0.
    pub(super) fn tags(&mut self, topic_id: Option<Uuid>) {
        if !self.flexible {
            return;
        }
        match topic_id.filter(|id| !id.is_zero()) {
            Some(id) => {
                self.bytes.put_slice(&[1, 0, 16]);
                self.bytes.put_slice(id.as_bytes());
            }
            None => self.varint(0),
        }
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }
}

fn length(len: usize) -> u32 {
    u32::try_from(len).ok().filter(|len| *len <= i32::MAX as u32).expect("a record is far below 2 GiB")
}

pub(super) struct Reader<'a> {
    input: &'a Bytes,
    position: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a Bytes) -> Reader<'a> {
        Reader { input, position: 0, flexible: false }
    }

    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    fn malformed(&self) -> RecordError {
        RecordError::Malformed(self.position)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, RecordError> {
        let end = self.position.checked_add(len).filter(|end| *end <= self.input.len());
        let end = end.ok_or(self.malformed())?;
        let slice = self.input.slice(self.position..end);
        self.position = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed())
    }

    /// A length; `None` is null.
    fn length(&mut self, wide: bool) -> Result<Option<usize>, RecordError> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if wide {
            i64::from(self.i32()?)
        } else {
            i64::from(self.i16()?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| self.malformed()),
        }
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<WireString>, RecordError> {
        let Some(len) = self.length(false)? else { return Ok(None) };
        let bytes = self.take(len)?;
        WireString::from_utf8(bytes).map(Some).map_err(|_| self.malformed())
    }

    pub(super) fn string(&mut self) -> Result<WireString, RecordError> {
        self.nullable_string()?.ok_or(self.malformed())
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, RecordError> {
        let len = self.length(true)?.ok_or(self.malformed())?;
        self.take(len)
    }

    /// A number of elements, each of which takes at least `len_min` bytes.
    pub(super) fn count(&mut self, len_min: usize) -> Result<usize, RecordError> {
        let count = self.length(true)?.ok_or(self.malformed())?;
        let left = self.input.len() - self.position;
        if count > left / len_min { Err(self.malformed()) } else { Ok(count) }
    }

    /// Tagged fields; tag 0 is a topic id, all others are passed over.
    pub(super) fn tags(&mut self) -> Result<Uuid, RecordError> {
        let mut topic_id = Uuid::ZERO;
        if !self.flexible {
            return Ok(topic_id);
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            let field = self.take(len)?;
            if tag == 0 && len == 16 {
                topic_id = Uuid::from_bytes(field[..].try_into().map_err(|_| self.malformed())?);
            }
        }
        Ok(topic_id)
    }
}
