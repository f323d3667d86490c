//! Load generator and verifier for any broker that speaks Kafka's protocol.
//!
//! - [`produce`], [`consume`], [`end_to_end`]: load, open loop (a rate) or the maximum, with latencies.
//! - [`verify`]: records whose content names them, and a memory of what was acknowledged, so that a check finds what is
//!   missing, doubled, out of order or altered, also across crashes of the broker.
//! - [`chart`]: what runs found, as pictures.
//! - [`client`]: the small Kafka client beneath, pipelined and aware of leaders.
//!
//! Invariants: batches are encoded before the run (see [`payload`]); latency counts from the intended time (see [`pace`]);
//! a worker shares nothing with another but the channel that its counts go through (see [`meter`]).

pub mod chart;
pub mod client;
pub mod consume;
pub mod end_to_end;
pub mod meter;
pub mod null;
pub mod pace;
pub mod payload;
pub mod produce;
pub mod quantity;
pub mod report;
pub mod reporter;
pub mod series;
pub mod template;
pub mod verify;
pub mod workers;
