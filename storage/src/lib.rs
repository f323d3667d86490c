//! Durable partition logs with one group-commit journal per shard.

pub mod disk;
