//! Sans-IO state machines of the broker: every decision that needs no socket, file, clock or thread.
//!
//! Architecture invariant: nothing here is async, reads a clock, touches a file or a socket, or draws a random number.
//! Time comes in as milliseconds since the Unix epoch, random ids come in as arguments, and what is to be done goes out
//! as values that a driver carries out.

pub mod admin;
pub mod config;
pub mod coordinator;
pub mod fetch_session;
pub mod group;
pub mod metadata;
pub mod partition;
