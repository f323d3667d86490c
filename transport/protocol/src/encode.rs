//! From messages to bytes.
//!
//! Fixed parts gather in one buffer; the slices of records are remembered with the place where they belong and come out
//! as segments of their own. Lengths that are known only afterwards (of a frame, of a tagged field) are filled in.

use bytes::{BufMut, Bytes};

use crate::decode::Scalar;
use crate::message::Fields;
use crate::records::Records;
use crate::uuid::Uuid;
use crate::wire_string::WireString;

/// Why a message cannot be written. The fault lies with the program that filled it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The message has no such version.
    #[error("{message} has no version {version}")]
    VersionUnknown {
        /// The message's name.
        message: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A field is set that the version cannot carry, and that must not be dropped silently.
    #[error("{field} is set, but version {version} does not carry it")]
    FieldAbsent {
        /// `Structure.field`.
        field: &'static str,
        /// The version that was asked for.
        version: i16,
    },
    /// A field is null that must not be in this version.
    #[error("{field} must not be null in this version")]
    Null {
        /// `Structure.field`.
        field: &'static str,
    },
    /// A string, bytes, records or array too long for its length prefix.
    #[error("a value of length {len} is too long to be encoded")]
    TooLong {
        /// Bytes, or elements of an array.
        len: usize,
    },
}

impl EncodeError {
    /// A field of this name is set and the version lacks it.
    #[cold]
    pub(crate) fn field_absent(field: &'static str, version: i16) -> EncodeError {
        EncodeError::FieldAbsent { field, version }
    }
}

/// The value of a field that must not be null in the version at hand.
pub(crate) fn required<'a, T>(value: &'a Option<T>, field: &'static str) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError::Null { field })
}

/// Collects one or more messages.
#[derive(Debug, Default)]
pub struct Encoder {
    /// All bytes but those of records.
    fixed: Vec<u8>,
    /// Slices of records, each with its place: the length of `fixed` when it came.
    slices: Vec<(usize, Bytes)>,
    slices_len: usize,
}

/// Marks a tagged field whose length is not known yet.
#[must_use]
pub(crate) struct TagStart(usize);

impl Encoder {
    /// An empty encoder.
    #[must_use]
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// An empty encoder with room for `capacity` bytes besides records.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Encoder {
        Encoder { fixed: Vec::with_capacity(capacity), ..Encoder::default() }
    }

    /// Bytes written, records included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fixed.len() + self.slices_len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes as segments in order, ready for a vectored write; record slices are among them, uncopied.
    #[must_use]
    pub fn finish(self) -> Vec<Bytes> {
        let fixed = Bytes::from(self.fixed);
        if self.slices.is_empty() {
            return vec![fixed];
        }
        let mut segments = Vec::with_capacity(2 * self.slices.len() + 1);
        let mut from = 0;
        for (place, slice) in self.slices {
            if place > from {
                segments.push(fixed.slice(from..place));
                from = place;
            }
            segments.push(slice);
        }
        if from < fixed.len() {
            segments.push(fixed.slice(from..));
        }
        segments
    }

    /// The bytes in one piece; this copies records.
    #[must_use]
    pub fn finish_contiguous(self) -> Bytes {
        if self.slices.is_empty() {
            return Bytes::from(self.fixed);
        }
        let mut joined = Vec::with_capacity(self.len());
        let mut from = 0;
        for (place, slice) in &self.slices {
            joined.extend_from_slice(&self.fixed[from..*place]);
            joined.extend_from_slice(slice);
            from = *place;
        }
        joined.extend_from_slice(&self.fixed[from..]);
        Bytes::from(joined)
    }

    /// Fills in the four bytes at the very beginning, which were written as a place holder.
    pub(crate) fn set_first_i32(&mut self, value: i32) {
        self.fixed[..4].copy_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.fixed.put_u8(u8::from(value));
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.fixed.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.fixed.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.fixed.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.fixed.put_i64(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.fixed.put_u16(value);
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.fixed.put_f64(value);
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.fixed.put_slice(&value.0);
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    pub(crate) fn uvarint(&mut self, value: u32) {
        let mut rest = value;
        while rest >= 0x80 {
            self.fixed.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.fixed.put_u8(rest as u8);
    }

    /// A length in front of bytes or elements: a 32-bit number, or a compact one that is higher by one.
    fn length(&mut self, len: usize, flexible: bool) -> Result<(), EncodeError> {
        let length = i32::try_from(len).map_err(|_| EncodeError::TooLong { len })?;
        if flexible {
            self.uvarint(length.unsigned_abs() + 1)
        } else {
            self.i32(length)
        }
        Ok(())
    }

    fn null(&mut self, flexible: bool) {
        if flexible { self.uvarint(0) } else { self.i32(-1) }
    }

    pub(crate) fn string(&mut self, value: &WireString, flexible: bool) -> Result<(), EncodeError> {
        // The old form counts with 16 bits, and the compact form is held to the same limit, as Apache Kafka does.
        let len = value.len();
        let length = i16::try_from(len).map_err(|_| EncodeError::TooLong { len })?;
        if flexible {
            self.uvarint(u32::from(length.unsigned_abs()) + 1)
        } else {
            self.i16(length)
        }
        self.fixed.put_slice(value.as_bytes());
        Ok(())
    }

    pub(crate) fn nullable_string(
        &mut self,
        value: Option<&WireString>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.string(value, flexible)?,
            None if flexible => self.uvarint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    pub(crate) fn bytes(&mut self, value: &Bytes, flexible: bool) -> Result<(), EncodeError> {
        self.length(value.len(), flexible)?;
        self.fixed.put_slice(value);
        Ok(())
    }

    pub(crate) fn nullable_bytes(
        &mut self,
        value: Option<&Bytes>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.bytes(value, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn records(&mut self, value: &Records, flexible: bool) -> Result<(), EncodeError> {
        let len = value.len();
        self.length(len, flexible)?;
        self.slices_len += len;
        let place = self.fixed.len();
        let slices = value.slices().iter().filter(|slice| !slice.is_empty());
        self.slices.extend(slices.map(|slice| (place, slice.clone())));
        Ok(())
    }

    pub(crate) fn nullable_records(
        &mut self,
        value: Option<&Records>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.records(value, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn nullable_structure<T: Fields>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                self.i8(1);
                value.write_fields(self, version)
            }
            None => {
                self.i8(-1);
                Ok(())
            }
        }
    }

    pub(crate) fn array<T: Fields>(
        &mut self,
        values: &[T],
        flexible: bool,
        version: i16,
    ) -> Result<(), EncodeError> {
        self.length(values.len(), flexible)?;
        values.iter().try_for_each(|value| value.write_fields(self, version))
    }

    pub(crate) fn nullable_array<T: Fields>(
        &mut self,
        values: Option<&[T]>,
        flexible: bool,
        version: i16,
    ) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.array(values, flexible, version),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn strings(&mut self, values: &[WireString], flexible: bool) -> Result<(), EncodeError> {
        self.length(values.len(), flexible)?;
        values.iter().try_for_each(|value| self.string(value, flexible))
    }

    pub(crate) fn nullable_strings(
        &mut self,
        values: Option<&[WireString]>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.strings(values, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn scalars<T: Scalar>(&mut self, values: &[T], flexible: bool) -> Result<(), EncodeError> {
        self.length(values.len(), flexible)?;
        values.iter().for_each(|value| value.put(&mut self.fixed));
        Ok(())
    }

    pub(crate) fn nullable_scalars<T: Scalar>(
        &mut self,
        values: Option<&[T]>,
        flexible: bool,
    ) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.scalars(values, flexible),
            None => {
                self.null(flexible);
                Ok(())
            }
        }
    }

    pub(crate) fn no_tags(&mut self) {
        self.fixed.put_u8(0);
    }

    /// Writes a tag and leaves a byte for its length, which [`Encoder::end_tag`] fills in.
    pub(crate) fn begin_tag(&mut self, tag: u32) -> TagStart {
        self.uvarint(tag);
        self.fixed.put_u8(0);
        TagStart(self.fixed.len())
    }

    pub(crate) fn end_tag(&mut self, start: TagStart) -> Result<(), EncodeError> {
        // The build refuses records in tagged fields, so that no slice lies inside.
        debug_assert!(self.slices.last().is_none_or(|(place, _)| *place < start.0));
        let len = self.fixed.len() - start.0;
        if len < 0x80 {
            self.fixed[start.0 - 1] = len as u8;
            return Ok(());
        }
        let mut length = Encoder::new();
        length.uvarint(u32::try_from(len).map_err(|_| EncodeError::TooLong { len })?);
        self.fixed.splice(start.0 - 1..start.0, length.fixed);
        Ok(())
    }
}
