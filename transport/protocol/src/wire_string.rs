//! Text that shares the buffer it arrived in.
#![allow(unsafe_code)]

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// Valid UTF-8 in a slice of a shared buffer: cloning costs a reference count, not a copy.
///
/// Mind that it keeps its whole buffer alive: what outlives a request should hold [`WireString::detached`].
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireString(Bytes);

/// The bytes are not valid UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid UTF-8")]
pub struct NotUtf8;

impl WireString {
    /// Text that lives in the program itself.
    #[must_use]
    pub const fn from_static(text: &'static str) -> WireString {
        WireString(Bytes::from_static(text.as_bytes()))
    }

    /// Text of these bytes, which are checked and shared, not copied.
    pub fn from_utf8(bytes: Bytes) -> Result<WireString, NotUtf8> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(WireString(bytes)),
            Err(_) => Err(NotUtf8),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: every constructor takes either text or bytes that `from_utf8` has checked, and `Bytes` never changes.
        unsafe { std::str::from_utf8_unchecked(&self.0) }
    }

    /// The underlying bytes, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The same text in memory of its own, so that it does not keep a request's buffer alive.
    #[must_use]
    pub fn detached(&self) -> WireString {
        WireString(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for WireString {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

// `Hash`, `Eq` and `Ord` of `Bytes` are those of its bytes. `str` hashes otherwise (it adds a byte), hence `[u8]` here.
impl Borrow<[u8]> for WireString {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<str> for WireString {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for WireString {
    fn from(text: &str) -> WireString {
        WireString(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for WireString {
    fn from(text: String) -> WireString {
        WireString(Bytes::from(text))
    }
}

impl PartialEq<str> for WireString {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for WireString {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Debug for WireString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for WireString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
