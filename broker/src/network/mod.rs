//! Kafka connections: listeners, connections with their reader and responder, and the bounds on both.
//!
//! A connection stays with the shard that accepted it. Its reader takes requests off the socket one by one and
//! begins each in order; its responder sends the answers in the same order. Between them is the [`pipeline`], which
//! is short: a client that sends faster than it is answered, or reads slower than it asks, stops being read from.

pub(crate) mod admission;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod listener;
pub(crate) mod pipeline;
mod progress;
mod receiver;
pub(crate) mod registry;
pub(crate) mod request_budget;
mod responder;
mod socket;
