//! From bytes to messages, bounded.
//!
//! A count is checked against the bytes that remain (each element takes at least its smallest size), against the limit of
//! elements, and against the memory that the input justifies, before anything is allocated for it. Strings, bytes and
//! records are slices of the input.

use bytes::Bytes;

use crate::limits::Limits;
use crate::message::Fields;
use crate::records::Records;
use crate::uuid::Uuid;
use crate::wire_string::WireString;

/// Why bytes are not the message they should be, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {position}")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: DecodeFault,
    /// Bytes read before the fault was seen.
    pub position: usize,
}

/// What can be wrong with a message; the fault always lies with who sent the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeFault {
    /// A value, or a length, reaches beyond the end.
    #[error("{needed} bytes are needed, {remaining} remain")]
    Truncated {
        /// Bytes that the value takes at least.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length below -1, or one of -1 where null is not allowed.
    #[error("a length of {0}")]
    NegativeLength(i32),
    /// Null where the version does not allow it.
    #[error("null where a value is required")]
    Null,
    /// A variable-length number of more than 32 bits.
    #[error("a variable-length number beyond 32 bits")]
    VarintTooLong,
    /// A string of more bytes than any string has: 32,767, in both notations, as Apache Kafka has it.
    #[error("a string of {0} bytes")]
    StringTooLong(usize),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// Tags must rise strictly.
    #[error("tag {0} is out of order or doubled")]
    TagOrder(u32),
    /// A tagged field does not end where its length says.
    #[error("tag {0} does not fill its length")]
    TagLength(u32),
    /// More elements than the limit.
    #[error("more than {0} elements in a message")]
    TooManyElements(usize),
    /// Arrays that would take far more memory than the bytes that describe them.
    #[error("arrays that need more memory than their bytes justify")]
    TooMuchMemory,
    /// The message has no such version.
    #[error("{message} has no version {version}")]
    VersionUnknown {
        /// The message's name.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// The message ends before the bytes do.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
}

/// Bytes of the longest string.
const STRING_LEN_MAX: usize = i16::MAX as usize;

/// A cursor over one message.
#[derive(Debug)]
pub struct Decoder {
    input: Bytes,
    position: usize,
    elements_left: usize,
    memory_left: usize,
    elements_max: usize,
}

impl Decoder {
    /// Starts at the first byte, with the usual limits.
    #[must_use]
    pub fn new(input: Bytes) -> Decoder {
        Decoder::with_limits(input, Limits::DEFAULT)
    }

    /// Starts at the first byte.
    #[must_use]
    pub fn with_limits(input: Bytes, limits: Limits) -> Decoder {
        let memory_left =
            limits.memory_base.saturating_add(input.len().saturating_mul(limits.memory_per_byte));
        let elements_max = limits.elements_max;
        Decoder { input, position: 0, elements_left: elements_max, memory_left, elements_max }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.input.len() - self.position
    }

    /// An error if bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.fault(DecodeFault::TrailingBytes(left))),
        }
    }

    /// The bytes not read yet, shared.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        let mut input = self.input;
        input.split_off(self.position)
    }

    #[cold]
    pub(crate) fn fault(&self, fault: DecodeFault) -> DecodeError {
        DecodeError { fault, position: self.position }
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        self.fault(DecodeFault::Truncated { needed, remaining: self.remaining() })
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.input[self.position..].first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    /// The next `len` bytes, shared.
    #[inline]
    fn slice(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(self.truncated(len));
        }
        let from = self.position;
        self.position += len;
        Ok(self.input.slice(from..self.position))
    }

    /// The first two 16-bit numbers of a frame, without moving on.
    pub(crate) fn peek(&self) -> Result<[i16; 2], DecodeError> {
        match self.input[self.position..].first_chunk::<4>() {
            Some([a, b, c, d]) => Ok([i16::from_be_bytes([*a, *b]), i16::from_be_bytes([*c, *d])]),
            None => Err(self.truncated(4)),
        }
    }

    #[inline]
    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        self.fixed::<1>().map(|[byte]| byte != 0)
    }

    #[inline]
    pub(crate) fn i8(&mut self) -> Result<i8, DecodeError> {
        self.fixed().map(i8::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.fixed().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.fixed().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.fixed().map(i64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.fixed().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.fixed().map(Uuid)
    }

    /// At most 32 bits in at most five bytes.
    #[inline]
    pub(crate) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        // Nearly all fit into one byte.
        match self.input.get(self.position) {
            Some(byte) if *byte < 0x80 => {
                self.position += 1;
                Ok(u32::from(*byte))
            }
            _ => self.long_uvarint(),
        }
    }

    fn long_uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fault(DecodeFault::VarintTooLong))
    }

    /// A length in front of bytes or elements; `None` is null.
    #[inline]
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        if flexible {
            return Ok((self.uvarint()? as usize).checked_sub(1));
        }
        let length = self.i32()?;
        self.checked_length(length)
    }

    fn checked_length(&self, length: i32) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.fault(DecodeFault::NegativeLength(length))),
        }
    }

    fn not_null<T>(&self, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or_else(|| self.fault(DecodeFault::Null))
    }

    pub(crate) fn string(&mut self, flexible: bool) -> Result<WireString, DecodeError> {
        let value = self.nullable_string(flexible)?;
        self.not_null(value)
    }

    pub(crate) fn nullable_string(&mut self, flexible: bool) -> Result<Option<WireString>, DecodeError> {
        let length = if flexible {
            self.length(true)?
        } else {
            let length = self.i16()?;
            self.checked_length(i32::from(length))?
        };
        let Some(length) = length else { return Ok(None) };
        // A longer one could be taken in and never be told again: encoding refuses it too.
        if length > STRING_LEN_MAX {
            return Err(self.fault(DecodeFault::StringTooLong(length)));
        }
        let bytes = self.slice(length)?;
        WireString::from_utf8(bytes).map(Some).map_err(|_| self.fault(DecodeFault::NotUtf8))
    }

    pub(crate) fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        let value = self.nullable_bytes(flexible)?;
        self.not_null(value)
    }

    pub(crate) fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length(flexible)? {
            Some(length) => self.slice(length).map(Some),
            None => Ok(None),
        }
    }

    pub(crate) fn records(&mut self, flexible: bool) -> Result<Records, DecodeError> {
        self.bytes(flexible).map(Records::from)
    }

    pub(crate) fn nullable_records(&mut self, flexible: bool) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes(flexible)?.map(Records::from))
    }

    pub(crate) fn nullable_structure<T: Fields>(&mut self, version: i16) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { T::read_fields(self, version).map(Some) }
    }

    /// A count of elements that take at least `len_min` bytes each here and `size` bytes each in memory.
    fn count(&mut self, flexible: bool, len_min: usize, size: usize) -> Result<Option<usize>, DecodeError> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        // `count` is below 2^32, so that neither product overflows.
        let needed = count * len_min.max(1);
        if needed > self.remaining() {
            return Err(self.truncated(needed));
        }
        self.elements_left = match self.elements_left.checked_sub(count) {
            Some(left) => left,
            None => return Err(self.fault(DecodeFault::TooManyElements(self.elements_max))),
        };
        self.memory_left = match self.memory_left.checked_sub(count * size) {
            Some(left) => left,
            None => return Err(self.fault(DecodeFault::TooMuchMemory)),
        };
        Ok(Some(count))
    }

    pub(crate) fn array<T: Fields>(&mut self, flexible: bool, version: i16) -> Result<Vec<T>, DecodeError> {
        let values = self.nullable_array(flexible, version)?;
        self.not_null(values)
    }

    pub(crate) fn nullable_array<T: Fields>(
        &mut self,
        flexible: bool,
        version: i16,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(flexible, T::LEN_MIN, size_of::<T>())? else { return Ok(None) };
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(T::read_fields(self, version)?);
        }
        Ok(Some(values))
    }

    pub(crate) fn strings(&mut self, flexible: bool) -> Result<Vec<WireString>, DecodeError> {
        let values = self.nullable_strings(flexible)?;
        self.not_null(values)
    }

    pub(crate) fn nullable_strings(
        &mut self,
        flexible: bool,
    ) -> Result<Option<Vec<WireString>>, DecodeError> {
        let len_min = if flexible { 1 } else { 2 };
        let Some(count) = self.count(flexible, len_min, size_of::<WireString>())? else { return Ok(None) };
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.string(flexible)?);
        }
        Ok(Some(values))
    }

    pub(crate) fn scalars<T: Scalar>(&mut self, flexible: bool) -> Result<Vec<T>, DecodeError> {
        let values = self.nullable_scalars(flexible)?;
        self.not_null(values)
    }

    pub(crate) fn nullable_scalars<T: Scalar>(
        &mut self,
        flexible: bool,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(flexible, T::LEN, size_of::<T>())? else { return Ok(None) };
        let from = self.position;
        self.position += count * T::LEN;
        let values = self.input[from..self.position].chunks_exact(T::LEN);
        Ok(Some(values.map(T::get).collect()))
    }

    /// Starts on the tagged fields that end a flexible structure.
    pub(crate) fn tags(&mut self) -> Result<Tags, DecodeError> {
        let left = self.uvarint()?;
        Ok(Tags { left, last: None, end: 0 })
    }

    /// Skips tagged fields none of which is known.
    #[inline]
    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        if self.input.get(self.position) == Some(&0) {
            self.position += 1;
            return Ok(());
        }
        self.skip_some_tags()
    }

    fn skip_some_tags(&mut self) -> Result<(), DecodeError> {
        let mut tags = self.tags()?;
        while tags.next(self)?.is_some() {
            tags.skip(self)?;
        }
        Ok(())
    }
}

/// The tagged fields of one structure, while they are read.
#[derive(Debug)]
pub struct Tags {
    left: u32,
    last: Option<u32>,
    /// Where the tag that was given last ends.
    end: usize,
}

impl Tags {
    /// The next tag. The caller reads its value, or calls `skip`.
    pub(crate) fn next(&mut self, decoder: &mut Decoder) -> Result<Option<u32>, DecodeError> {
        if let Some(last) = self.last
            && decoder.position != self.end
        {
            return Err(decoder.fault(DecodeFault::TagLength(last)));
        }
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let tag = decoder.uvarint()?;
        if self.last.is_some_and(|last| tag <= last) {
            return Err(decoder.fault(DecodeFault::TagOrder(tag)));
        }
        let len = decoder.uvarint()? as usize;
        if len > decoder.remaining() {
            return Err(decoder.truncated(len));
        }
        self.last = Some(tag);
        self.end = decoder.position + len;
        Ok(Some(tag))
    }

    /// Passes over the value of the tag that was given last.
    pub(crate) fn skip(&self, decoder: &mut Decoder) -> Result<(), DecodeError> {
        decoder.position = self.end;
        Ok(())
    }
}

/// A fixed-size value that comes in arrays.
pub trait Scalar: Sized {
    /// Its bytes on the wire.
    const LEN: usize;

    /// From exactly `LEN` bytes.
    fn get(bytes: &[u8]) -> Self;

    /// Appends its bytes.
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! scalar {
    ($($number:ty),*) => {$(
        impl Scalar for $number {
            const LEN: usize = size_of::<$number>();

            fn get(bytes: &[u8]) -> $number {
                // The caller gives chunks of exactly `LEN` bytes; others read as zero.
                bytes.try_into().map(<$number>::from_be_bytes).unwrap_or_default()
            }

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
        }
    )*};
}

scalar!(i8, i16, i32, i64);

impl Scalar for Uuid {
    const LEN: usize = 16;

    fn get(bytes: &[u8]) -> Uuid {
        Uuid(bytes.try_into().unwrap_or_default())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}
