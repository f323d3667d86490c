//! The log engine against a naive twin, on a simulated disk that crashes.
//!
//! `PENSTOCK_SEED=<n>` runs one seed of each test (failures print theirs); `PENSTOCK_CRASHES=<n>` sets the number of
//! crash points of each crash test.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

mod clean;
mod crash;
mod failing;
mod full;
mod model;
mod oracle;
mod plan;
mod planted;
mod traffic;
mod twin;
