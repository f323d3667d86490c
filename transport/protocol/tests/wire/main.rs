//! The generated messages against Apache Kafka's own bytes: whole, cut, and mutated.

#![allow(clippy::unwrap_used)] // a test fails by panicking

mod allocation;
mod codec;
mod corpus;
mod debug_tree;
mod limits;
mod mutations;
mod seeds;
mod tags;
mod vectors;
