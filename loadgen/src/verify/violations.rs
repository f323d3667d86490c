//! What a check found to be wrong: counted without a bound, listed up to one.

use std::collections::BTreeMap;
use std::fmt;

/// How many violations of each kind are listed: one loss displaces all that comes after it, which must not crowd out what
/// is missing.
const LISTED_MAX: usize = 25;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Acknowledged records are not in the log.
    Missing {
        /// Partition.
        partition: i32,
        /// The run that wrote them.
        run_id: u64,
        /// First sequence.
        first: u64,
        /// Last sequence.
        last: u64,
    },
    /// A record of an idempotent producer is there again.
    Duplicated {
        /// Partition.
        partition: i32,
        /// Where the second one is.
        offset: i64,
        /// Its sequence.
        sequence: u64,
    },
    /// A record that does not follow the one before it.
    OutOfOrder {
        /// Partition.
        partition: i32,
        /// Where it is.
        offset: i64,
        /// The sequence that should be there.
        expected: u64,
        /// The sequence that is there.
        found: u64,
    },
    /// Bytes that are not what was sent.
    Altered {
        /// Partition.
        partition: i32,
        /// Offset of the record, or of the batch's first.
        offset: i64,
        /// What is wrong with it.
        what: String,
    },
    /// An acknowledged offset holds something else, or the log's offsets jump.
    Displaced {
        /// Partition.
        partition: i32,
        /// Where.
        offset: i64,
        /// What should be there and what is.
        what: String,
    },
}

impl Violation {
    /// Its kind, to count by.
    pub fn kind(&self) -> &'static str {
        match self {
            Violation::Missing { .. } => "missing",
            Violation::Duplicated { .. } => "duplicated",
            Violation::OutOfOrder { .. } => "out of order",
            Violation::Altered { .. } => "altered",
            Violation::Displaced { .. } => "displaced",
        }
    }

    /// How many records it is about.
    fn records(&self) -> u64 {
        match self {
            Violation::Missing { first, last, .. } => last - first + 1,
            _ => 1,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Missing { partition, run_id, first, last } => {
                write!(f, "missing: partition {partition}, sequences {first} to {last} of run {run_id:016x}")
            }
            Violation::Duplicated { partition, offset, sequence } => {
                write!(f, "duplicated: partition {partition}, sequence {sequence} again at offset {offset}")
            }
            Violation::OutOfOrder { partition, offset, expected, found } => {
                write!(
                    f,
                    "out of order: partition {partition}, offset {offset} holds sequence {found}, not {expected}"
                )
            }
            Violation::Altered { partition, offset, what } => {
                write!(f, "altered: partition {partition}, offset {offset}: {what}")
            }
            Violation::Displaced { partition, offset, what } => {
                write!(f, "displaced: partition {partition}, offset {offset}: {what}")
            }
        }
    }
}

/// Violations of a whole check.
#[derive(Debug, Clone, Default)]
pub struct Violations {
    counts: BTreeMap<&'static str, u64>,
    listed: Vec<Violation>,
}

impl Violations {
    /// Adds one.
    pub fn add(&mut self, violation: Violation) {
        *self.counts.entry(violation.kind()).or_default() += violation.records();
        self.list(violation);
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: Violations) {
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        for violation in other.listed {
            self.list(violation);
        }
    }

    fn list(&mut self, violation: Violation) {
        if self.listed.iter().filter(|listed| listed.kind() == violation.kind()).count() < LISTED_MAX {
            self.listed.push(violation);
        }
    }

    /// Whether all is well.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Records by kind of violation.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The first 25 of each kind.
    pub fn listed(&self) -> &[Violation] {
        &self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kind_does_not_crowd_out_another() {
        let mut violations = Violations::default();
        for offset in 0..1000 {
            violations.add(Violation::Displaced { partition: 0, offset, what: String::new() });
        }
        violations.add(Violation::Missing { partition: 0, run_id: 1, first: 5, last: 9 });
        let mut all = Violations::default();
        all.merge(violations.clone());
        all.merge(violations);
        assert_eq!(all.counts().values().copied().collect::<Vec<_>>(), [2000, 10]);
        assert_eq!(all.listed().iter().filter(|violation| violation.kind() == "missing").count(), 2);
        assert_eq!(all.listed().len(), LISTED_MAX + 2);
    }
}
