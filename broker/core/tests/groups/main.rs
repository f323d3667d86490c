//! The group coordinator seen from outside: transcripts of each protocol step, and random histories held to a simple model.

#![allow(clippy::unwrap_used)]

mod client;
mod command;
mod log;
mod parked;
mod print;
mod random;
mod restart;
mod transcripts;
