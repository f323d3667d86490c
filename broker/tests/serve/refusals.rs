//! What keeps the broker from starting: each one sentence with a remedy, on stderr, and an exit status that is not 0.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::broker::{Broker, command, directory};

/// Runs a command that must be refused; what it said.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "no ready line");
    let last = said.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("penstock: "), "{said}");
    last
}

#[test]
fn a_data_directory_in_use() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 1);
    let said = refused(command(dir.path()).args(["--listen", "127.0.0.1:0"]));
    assert!(said.contains("in use by another process") && said.contains("--data-dir"), "{said}");
    assert!(broker.stop().success());
}

#[test]
fn a_port_that_is_taken() {
    let dir = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(command(dir.path()).args(["--listen", &address]));
    assert!(said.contains(&address) && said.contains("choose another port"), "{said}");
    let mut other = command(dir.path());
    let said = refused(other.args(["--listen", "127.0.0.1:0", "--admin", &address]));
    assert!(said.contains(&address) && said.contains("--admin"), "{said}");
}

#[test]
fn a_port_that_another_broker_shares() {
    // SO_REUSEPORT would let both listen and split the connections between them.
    let (one, two) = (directory(), directory());
    let broker = Broker::start(one.path(), 2);
    let said = refused(command(two.path()).args(["--listen", &broker.kafka]));
    assert!(said.contains("taken by another program"), "{said}");
}

#[test]
fn configs_that_are_unknown_or_out_of_range() {
    let dir = directory();
    let said = refused(command(dir.path()).args(["--set", "log.retention.hour=1"]));
    assert!(said.contains("log.retention.hour"), "{said}");
    let said = refused(command(dir.path()).args(["--set", "socket.request.max.bytes=0"]));
    assert!(said.contains("socket.request.max.bytes") && said.contains('0'), "{said}");
    let said = refused(command(dir.path()).args(["--config", "/no/such/file"]));
    assert!(said.contains("/no/such/file") && said.contains("--config"), "{said}");
    let said = refused(command(dir.path()).args(["--set", "advertised.listeners=SSL://a:1"]));
    assert!(said.contains("PLAINTEXT"), "{said}");
}

#[test]
fn data_of_another_cluster_node_or_version() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 1, &["penstock.cluster.id=first", "node.id=3"]);
    assert!(broker.stop().success());
    let said =
        refused(command(dir.path()).args(["--set", "penstock.cluster.id=second", "--set", "node.id=3"]));
    assert!(said.contains("first") && said.contains("second"), "{said}");
    let said = refused(command(dir.path()).args(["--set", "node.id=4"]));
    assert!(said.contains("node 3") && said.contains("node.id"), "{said}");
    let meta = dir.path().join("data/penstock.meta");
    fs::write(&meta, "format=3\n").unwrap();
    let said = refused(&mut command(dir.path()));
    assert!(said.contains("newer version") && said.contains("upgrade"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_written() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    let said = refused(command.args(["serve", "--data-dir", "/proc/penstock", "--listen", "127.0.0.1:0"]));
    assert!(said.contains("/proc/penstock") && said.contains("cannot be written"), "{said}");
}
