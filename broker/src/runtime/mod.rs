//! Where code runs: shard executors on their cores, the worker pool beside them, signals, and what passes
//! between shards. Together with `shard` and `network` the only place of this package that knows the executor.

pub(crate) mod cpus;
pub(crate) mod executors;
pub(crate) mod guard;
pub(crate) mod heap;
pub(crate) mod mailbox;
pub(crate) mod memory;
pub(crate) mod os;
pub(crate) mod pace;
pub(crate) mod panics;
pub(crate) mod semaphore;
pub(crate) mod stall;
pub(crate) mod task;
pub(crate) mod workers;
