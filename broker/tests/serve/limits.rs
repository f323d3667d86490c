//! Bounds, foreign peers and the admin port.

use std::io::{Read, Write};
use std::net::TcpStream;

use penstock_protocol::messages::ApiVersionsRequest;

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::Client;

/// Sends bytes on a new connection and waits for its end.
fn ended_by(broker: &Broker, bytes: &[u8]) {
    let mut stream = TcpStream::connect(&broker.kafka).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(0) => {}
        Ok(_) => panic!("the broker answered"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

#[test]
fn foreign_peers_end_with_one_line_that_says_what_was_seen() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &["socket.request.max.bytes=1000"]);
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], "TLS"),
        (&[0, 0, 4, 0, 0, 0, 0, 9, 1, 2, 3, 4], "1024"),
        (&[0, 0, 0, 12, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0, 0], "Metadata version 99"),
    ];
    for (bytes, seen) in cases {
        broker.forget_log();
        ended_by(&broker, bytes);
        let logged = broker.logged();
        assert!(logged.lines().count() == 1 && logged.contains(seen), "{seen}: {logged}");
    }
    let mut client = Client::connect(&broker.kafka);
    assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
}

#[test]
fn connections_are_bounded() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &["max.connections=2"]);
    let mut first = Client::connect(&broker.kafka);
    let mut second = Client::connect(&broker.kafka);
    // Each is accepted once it is answered.
    first.call(0, &ApiVersionsRequest::default());
    second.call(0, &ApiVersionsRequest::default());
    ended_by(&broker, &[0]);
    assert!(broker.logged().contains("max.connections (2) reached"), "{}", broker.logged());
    first.call(0, &ApiVersionsRequest::default());
}

#[test]
fn idle_connections_end() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &["connections.max.idle.ms=200"]);
    let mut client = Client::connect(&broker.kafka);
    assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 0);
    assert!(broker.logged().contains("it was idle"), "{}", broker.logged());
}

#[test]
fn the_admin_port_tells_health_and_metrics() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("seen", 4);
    client.produce("seen", 0, "value");
    assert!(broker.get("/health").starts_with("HTTP/1.1 200 OK\r\n"));
    let metrics = broker.get("/metrics");
    for expected in
        ["penstock_topics 1\n", "penstock_broker_connections 1\n", "penstock_partitions{shard=\"1\"}"]
    {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    assert!(!metrics.contains("seen"), "no label per topic");
}
