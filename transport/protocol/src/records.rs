//! The records field of Produce and Fetch: opaque bytes that are never copied.

use std::fmt;

use bytes::{Bytes, BytesMut};

/// Record batches as slices of shared buffers. Decoding gives one slice; encoding sends each slice as a segment.
#[derive(Clone)]
pub struct Records(Slices);

/// Most records come as one slice, which needs no list.
#[derive(Clone)]
enum Slices {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Records {
    /// The slices, in order.
    #[must_use]
    pub fn slices(&self) -> &[Bytes] {
        match &self.0 {
            Slices::One(slice) => std::slice::from_ref(slice),
            Slices::Many(slices) => slices,
        }
    }

    /// Bytes of all slices together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices().iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices().iter().all(Bytes::is_empty)
    }

    /// All of it in one piece: shared if it is one slice already (as decoding gives it), else copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self.slices() {
            [] => Bytes::new(),
            [slice] => slice.clone(),
            slices => {
                let mut joined = BytesMut::with_capacity(self.len());
                slices.iter().for_each(|slice| joined.extend_from_slice(slice));
                joined.freeze()
            }
        }
    }
}

impl Default for Records {
    fn default() -> Records {
        Records(Slices::One(Bytes::new()))
    }
}

impl From<Bytes> for Records {
    fn from(slice: Bytes) -> Records {
        Records(Slices::One(slice))
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(slices: Vec<Bytes>) -> Records {
        Records(Slices::Many(slices))
    }
}

/// Equal if the bytes are, however they are sliced.
impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.len() == other.len() && self.slices().iter().flatten().eq(other.slices().iter().flatten())
    }
}

impl Eq for Records {}

/// Shows the length, not the contents.
impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Records({} bytes)", self.len())
    }
}
