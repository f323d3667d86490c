//! `penstock serve` from outside: how it starts, refuses, serves, stops and comes back. Each test runs the real binary on a
//! free port and a directory of its own.

#![allow(clippy::unwrap_used)]

mod broker;
mod client;
mod descriptors;
mod flips;
mod histograms;
mod large;
mod limits;
mod lives;
mod load;
mod offsets;
mod order;
mod producers;
mod refusals;
mod slow;
mod stop;
mod surface;
mod threads;
