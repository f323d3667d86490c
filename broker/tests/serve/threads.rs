//! The threads of a broker, as the system tells of them.

use std::fs;

use crate::broker::{Broker, directory};

/// Niceness of the thread of this name.
fn niceness(broker: &Broker, name: &str) -> i32 {
    let tasks = fs::read_dir(format!("/proc/{}/task", broker.id())).unwrap();
    // Others may end while they are listed.
    let stats: Vec<String> =
        tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok()).collect();
    let named = format!("({name}) ");
    let stat = stats.iter().find_map(|stat| stat.split_once(&named)).unwrap_or_else(|| panic!("no {name}")).1;
    // proc_pid_stat(5): the name is the second field, this the nineteenth.
    stat.split(' ').nth(16).unwrap().parse().unwrap()
}

/// Cleaning computes for as long as there is something to clean: on a host with as many cores as shards the kernel would share
/// one out evenly between it and a shard.
#[test]
fn the_cleaner_gives_way_to_shards() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let shard = niceness(&broker, "shard-0-1");
    assert_eq!(niceness(&broker, "cleaner-0"), (shard + 10).min(19));
    assert_eq!(niceness(&broker, "disk-0"), shard);
    assert!(broker.stop().success());
}
