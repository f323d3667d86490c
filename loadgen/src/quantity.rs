//! Quantities as people type them on a command line: sizes, rates, durations, partition lists.

use std::str::FromStr;
use std::time::Duration;

/// Why a quantity was refused; says what was given and what would have been taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {expected}")]
pub struct QuantityError {
    given: String,
    expected: &'static str,
}

/// A number of bytes: `1000`, `64KiB`, `1MB`, `2GiB`; `k`, `m`, `g` alone are decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a size in bytes such as 1000, 64KiB or 1MB";
        let refuse = || QuantityError { given: text.to_owned(), expected };
        let (number, unit) = split_unit(text);
        let factor = byte_factor(unit).ok_or_else(refuse)?;
        let value = number.parse::<f64>().map_err(|_| refuse())?;
        whole(value * factor as f64).map(ByteSize).ok_or_else(refuse)
    }
}

/// How fast an open loop sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Records in a second, over all producers.
    Records(f64),
    /// Bytes of record values in a second, over all producers.
    Bytes(f64),
}

impl Rate {
    /// Records in a second, when each carries `record_bytes`.
    pub fn records_per_second(self, record_bytes: usize) -> f64 {
        match self {
            Rate::Records(records) => records,
            Rate::Bytes(bytes) => bytes / record_bytes.max(1) as f64,
        }
    }
}

impl FromStr for Rate {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a positive rate such as 50000 or 50k (records/s), 100MB/s or 64MiB/s";
        let refuse = || QuantityError { given: text.to_owned(), expected };
        let body = text.strip_suffix("/s").unwrap_or(text);
        let (number, unit) = split_unit(body);
        let value = number.parse::<f64>().map_err(|_| refuse())?;
        let factor = byte_factor(unit).ok_or_else(refuse)? as f64;
        if !(value * factor).is_finite() || value <= 0.0 {
            return Err(refuse());
        }
        let in_bytes = unit.ends_with(['b', 'B']);
        Ok(if in_bytes { Rate::Bytes(value * factor) } else { Rate::Records(value * factor) })
    }
}

/// A length of time: `30` (seconds), `500ms`, `30s`, `2m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a length of time such as 30, 500ms, 30s or 2m";
        let refuse = || QuantityError { given: text.to_owned(), expected };
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse()),
        };
        let seconds = number.parse::<f64>().map_err(|_| refuse())? * factor;
        // Ten years: more is a typing mistake, and would overflow an Instant.
        if !(0.0..=3.2e8).contains(&seconds) {
            return Err(refuse());
        }
        Ok(Span(Duration::from_secs_f64(seconds)))
    }
}

/// A set of partitions: `0,3,8-11`. Ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSet(pub Vec<i32>);

impl FromStr for PartitionSet {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a list of partitions such as 0,3,8-11";
        let refuse = || QuantityError { given: text.to_owned(), expected };
        let mut partitions = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.trim().parse::<i32>().map_err(|_| refuse())?;
            let last = last.trim().parse::<i32>().map_err(|_| refuse())?;
            if first < 0 || last < first || last - first > 1_000_000 {
                return Err(refuse());
            }
            partitions.extend(first..=last);
        }
        partitions.sort_unstable();
        partitions.dedup();
        Ok(PartitionSet(partitions))
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn byte_factor(unit: &str) -> Option<u64> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    })
}

fn whole(value: f64) -> Option<u64> {
    (value.is_finite() && value >= 0.0 && value < 2f64.powi(63) && value.fract() == 0.0)
        .then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!("1000".parse(), Ok(ByteSize(1000)));
        assert_eq!("64KiB".parse(), Ok(ByteSize(65536)));
        assert_eq!("1.5kB".parse(), Ok(ByteSize(1500)));
        for bad in ["", "KiB", "-1", "1.5", "1 parsec", "1e400"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_know_records_from_bytes() {
        assert_eq!("50k".parse(), Ok(Rate::Records(50_000.0)));
        assert_eq!("50000/s".parse(), Ok(Rate::Records(50_000.0)));
        assert_eq!("2MiB/s".parse(), Ok(Rate::Bytes(2_097_152.0)));
        assert_eq!("2MB".parse(), Ok(Rate::Bytes(2_000_000.0)));
        assert_eq!(Rate::Bytes(2_000_000.0).records_per_second(1000), 2000.0);
        for bad in ["0", "-3", "fast", "0MB/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans() {
        assert_eq!("30".parse(), Ok(Span(Duration::from_secs(30))));
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert!("2 weeks".parse::<Span>().is_err());
        assert!("99999999999999h".parse::<Span>().is_err());
    }

    #[test]
    fn partition_sets() {
        assert_eq!("3,0,8-10,9".parse(), Ok(PartitionSet(vec![0, 3, 8, 9, 10])));
        for bad in ["", "a", "3-1", "-1", "0-99999999"] {
            assert!(bad.parse::<PartitionSet>().is_err(), "{bad}");
        }
    }
}
