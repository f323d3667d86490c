//! 128-bit identifiers of topics, directories and members.

use std::fmt;
use std::str::FromStr;

/// A universally unique identifier. Shown as Kafka shows it: 22 characters of URL-safe base64 without padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// No identifier.
    pub const ZERO: Uuid = Uuid([0; 16]);
    /// The reserved identifier 1, which Apache Kafka gives to the metadata topic.
    pub const ONE: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// The 16 bytes, in wire order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Uuid {
        Uuid(bytes)
    }

    /// The 16 bytes, in wire order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is [`Uuid::ZERO`].
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Uuid::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits are 21 letters of 6 bits and one of 2 bits, which stand at its top.
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        for (at, letter) in text.iter_mut().enumerate() {
            let index = if at < 21 { bits >> (122 - 6 * at) } else { bits << 4 };
            *letter = ALPHABET[(index & 63) as usize];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an identifier: 22 characters of URL-safe base64 are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: expected 22 characters of URL-safe base64")]
pub struct NotUuid;

impl FromStr for Uuid {
    type Err = NotUuid;

    fn from_str(text: &str) -> Result<Uuid, NotUuid> {
        let letters: &[u8; 22] = text.as_bytes().try_into().map_err(|_| NotUuid)?;
        let mut bits = 0u128;
        for (at, letter) in letters.iter().enumerate() {
            let index = ALPHABET.iter().position(|known| known == letter).ok_or(NotUuid)? as u128;
            if at < 21 {
                bits = bits << 6 | index;
            } else if index & 15 == 0 {
                bits = bits << 2 | index >> 4;
            } else {
                return Err(NotUuid);
            }
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_and_read_back() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid::ONE.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        let uuid = Uuid(*b"2E78EFF4C1943D68");
        assert_eq!(uuid.to_string(), "MkU3OEVGRjRDMTk0M0Q2OA");
        assert_eq!("MkU3OEVGRjRDMTk0M0Q2OA".parse(), Ok(uuid));
        assert_eq!(Uuid([0xff; 16]).to_string().parse(), Ok(Uuid([0xff; 16])));
        for wrong in ["", "MkU3OEVGRjRDMTk0M0Q2O", "MkU3OEVGRjRDMTk0M0Q2OB", "MkU3OEVGRjRDMTk0M0Q2O="] {
            assert_eq!(wrong.parse::<Uuid>(), Err(NotUuid));
        }
    }
}
