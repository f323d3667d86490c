//! The command line from outside: the real binary against a real broker, and against data directories.

#![allow(clippy::unwrap_used)]

#[path = "../serve/broker.rs"]
#[allow(dead_code, reason = "shared with the tests of `serve`, which use more of it")]
mod broker;
mod command;
mod configs;
mod damage;
mod data;
mod files;
mod groups;
mod topics;
mod usage;
