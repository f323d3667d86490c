//! What needs no broker: usage, completions, addresses, and brokers that are not there.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::command::penstock;

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    for args in [
        "",
        "topic",
        "topic create",
        "topic create t --partitions 0",
        "topic create t --config novalue",
        "consume t --from somewhere",
        "consume t --from time:yesterday",
        "group reset-offsets g --to-latest",
        "group reset-offsets g --topic t",
        "group reset-offsets g --topic t --by-duration 1D",
        "consume t --print nothing",
        "produce t --header novalue",
        "group reset-offsets g --topic t --to-latest --to-earliest",
        "group reset-offsets g --topic t --to-latest --execute --dry-run",
        "config get nothing x",
        "completions tcsh",
        "nonsense",
    ] {
        let said = penstock(args).failed(2);
        assert!(said.contains("--help") || said.contains("Usage"), "{args:?}: {said}");
    }
    let said = penstock("topic list --bootstrap nowhere").failed(2);
    assert!(said.contains("'nowhere' is no address") && said.contains("--bootstrap"), "{said}");
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = penstock(&format!("completions {shell}")).ok();
        for word in ["reset-offsets", "exit-at-end", "checkpoint"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn a_broker_that_is_not_there() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in ["topic list", "group list", "config get topic t", "consume t", "produce t"] {
        let said = penstock(&format!("{command} --bootstrap {address}")).failed(1);
        assert_eq!(
            said,
            format!(
                "penstock: no broker answers at {address} (connection refused): is it started? see --bootstrap\n"
            )
        );
    }
}

#[test]
fn something_else_than_a_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 128];
        let _ = stream.read(&mut request).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let said = penstock(&format!("topic list --bootstrap {address}")).failed(1);
    server.join().unwrap();
    assert!(said.contains("something else than Kafka's protocol") && said.contains("--bootstrap"), "{said}");
}
