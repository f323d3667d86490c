//! Bounds, foreign peers and the admin port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use penstock_protocol::WireString;
use penstock_protocol::messages::ApiVersionsRequest;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::broker::{Broker, PATIENCE, directory};
use crate::client::{Client, FETCH, fetch};

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

/// Connections to `address` that the kernel holds until they are accepted, by its list of sockets that listen.
fn held_by_the_kernel(address: &str) -> usize {
    let address: SocketAddr = address.parse().unwrap();
    let (local, listens) = (format!("0100007F:{:04X}", address.port()), "0A");
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let held = sockets.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, waiting) = fields[4].split_once(':')?;
        (fields[1] == local && fields[3] == listens).then(|| usize::from_str_radix(waiting, 16).unwrap())
    });
    held.sum()
}

/// What clients do when a broker comes back.
#[test]
fn clients_that_come_all_at_once_are_held_and_served() {
    let dir = directory();
    let broker = Broker::start_with(dir.path(), 2, &[]);
    let held_max = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let count = held_max.trim().parse::<usize>().unwrap().min(500);
    broker.freeze();
    let mut clients: Vec<_> = (0..count).map(|_| Client::connect(&broker.kafka)).collect();
    assert_eq!(held_by_the_kernel(&broker.kafka), count, "others were turned away");
    let request = ApiVersionsRequest::default();
    let sent: Vec<_> = clients.iter_mut().map(|client| client.send(0, &request)).collect();
    broker.signal("CONT");
    for (client, id) in clients.iter_mut().zip(sent) {
        assert_eq!(client.receive::<ApiVersionsRequest>(0, id).error_code, 0);
    }
}

/// Connects from an address of the loopback network.
fn connect_from(broker: &Broker, address: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket.connect(&broker.kafka.parse::<SocketAddr>().unwrap().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn connections_are_bounded_per_address() {
    let dir = directory();
    let settings = ["max.connections.per.ip=1", "max.connections.per.ip.overrides=127.0.0.2:2,127.0.0.3:0"];
    let broker = Broker::start_with(dir.path(), 2, &settings);
    let mut held = Vec::new();
    for (address, max) in [([127, 0, 0, 1], 1), ([127, 0, 0, 2], 2), ([127, 0, 0, 3], 0)] {
        for _ in 0..max {
            let mut client = Client::over(connect_from(&broker, address));
            assert_eq!(client.call(0, &ApiVersionsRequest::default()).error_code, 0);
            held.push(client);
        }
        assert_eq!(connect_from(&broker, address).read(&mut [0; 1]).unwrap(), 0);
        let reached = format!("max.connections.per.ip ({max}) reached");
        assert!(broker.logged().contains(&reached), "{reached}: {}", broker.logged());
    }
    let mut last = held.pop().unwrap();
    last.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(last.stream.read(&mut [0; 1]).unwrap(), 0);
    // It counts until its shard has let it go.
    connections_until(&broker, |page| page["open"] == 2);
    let mut next = Client::over(connect_from(&broker, [127, 0, 0, 2]));
    assert_eq!(next.call(0, &ApiVersionsRequest::default()).error_code, 0);
}

/// What the admin port answers to GET `path`, which is JSON.
pub(crate) fn json_of(broker: &Broker, path: &str) -> Value {
    let answer = broker.get(path);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The listing once it is as wanted, however long that takes.
fn connections_until(broker: &Broker, wanted: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let page = json_of(broker, "/connections");
        if wanted(&page) {
            return page;
        }
        assert!(since.elapsed() < PATIENCE, "{page}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_admin_port_lists_connections() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    assert_eq!(json_of(&broker, "/connections"), json!({ "open": 0, "connections": [], "next_after": null }));
    let mut first = Client::connect(&broker.kafka);
    let software = ApiVersionsRequest {
        client_software_name: WireString::from_static("serve"),
        client_software_version: WireString::from_static("1.2"),
        ..ApiVersionsRequest::default()
    };
    first.call(3, &software);
    first.create_topic("listed", 1);
    let mut second = Client::connect(&broker.kafka);
    second.call(0, &ApiVersionsRequest::default());
    // A fetch that waits far longer than the test takes is in flight.
    first.send(FETCH, &fetch("listed", &[(0, 0)], 600_000));
    let page = connections_until(&broker, |page| page["connections"][0]["requests"] == 3);
    let [one, two] = page["connections"].as_array().unwrap().as_slice() else { panic!("two: {page}") };
    let address = first.stream.local_addr().unwrap().to_string();
    assert_eq!((&one["peer"], &one["id"], &one["in_flight"]), (&json!(address), &json!(1), &json!(1)));
    assert_eq!((&one["software_name"], &one["software_version"]), (&json!("serve"), &json!("1.2")));
    assert_eq!((&two["client_id"], &two["software_name"]), (&json!("serve-test"), &Value::Null));
    assert_eq!((&two["requests"], &two["in_flight"]), (&json!(1), &json!(0)));
    // An ApiVersions request of version 0: length, key, version, correlation id, client id.
    assert_eq!(two["bytes_in"], json!(4 + 2 + 2 + 4 + 2 + "serve-test".len()));
    assert!(two["bytes_out"].as_u64().unwrap() > 0 && two["opened_at_ms"].as_i64().unwrap() > 0);
    let beginning = json_of(&broker, "/connections?limit=1");
    assert_eq!((&beginning["open"], &beginning["next_after"]), (&json!(2), &json!(1)));
    assert_eq!(json_of(&broker, "/connections?after=1")["connections"][0]["id"], json!(2));
    assert!(broker.get("/connections?limit=all").starts_with("HTTP/1.1 400 "));
    drop(second);
    connections_until(&broker, |page| page["open"] == 1);
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
