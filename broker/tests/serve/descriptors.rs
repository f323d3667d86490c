//! Few descriptors: files are opened and closed in turn, and connections beyond what is left are refused.

use penstock_protocol::messages::FetchRequest;

use crate::broker::{Broker, directory};
use crate::client::{Client, FETCH, PRODUCE, fetch, produce, values_of};

const PARTITIONS: i32 = 2000;
const FILES: usize = 256;

/// Connections that the broker serves at once with so few files, as it logs.
fn connections_served(log: &str) -> usize {
    let words: Vec<&str> = log.split_whitespace().collect();
    let at = words.windows(3).position(|words| words == ["connections", "are", "served"]);
    words[at.unwrap_or_else(|| panic!("the broker did not say how many:\n{log}")) - 1].parse().unwrap()
}

/// Two thousand partitions have a segment file each, of which the broker may hold some sixty open.
#[test]
fn thousands_of_files_are_served_with_few_descriptors() {
    let dir = directory();
    let broker = Broker::start_limited(dir.path(), FILES, 1);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic("many", PARTITIONS);
    for round in 0..2 {
        for partition in 0..PARTITIONS {
            let value = format!("{partition}-{round}");
            let response = client.call(PRODUCE, &produce("many", partition, &value, -1));
            let code = response.responses[0].partition_responses[0].error_code;
            assert_eq!(code, 0, "{partition}: {}", broker.logged());
        }
    }
    // As many connections are answered as the broker said that it serves, and all others are closed.
    let mut held: Vec<Client> = (0..FILES).map(|_| Client::connect(&broker.kafka)).collect();
    let request = fetch("many", &[(0, 0)], 0);
    let answers = |client: &mut Client| {
        let sent = client.try_send(FETCH, &request);
        sent.and_then(|id| client.try_receive::<FetchRequest>(FETCH, id)).is_ok()
    };
    let answered = held.iter_mut().map(answers).filter(|answered| *answered).count();
    assert_eq!(1 + answered, connections_served(&broker.logged()), "{}", broker.logged());
    drop(held);
    for partition in (0..PARTITIONS).step_by(7) {
        let response = client.call(FETCH, &fetch("many", &[(partition, 0)], 0));
        assert_eq!(values_of(&response), [format!("{partition}-0"), format!("{partition}-1")]);
    }
    // From the files, not from memory, and after everything was settled in them.
    assert!(broker.stop().success());
    let broker = Broker::start_limited(dir.path(), FILES, 1);
    let mut client = Client::connect(&broker.kafka);
    for partition in 0..PARTITIONS {
        let response = client.call(FETCH, &fetch("many", &[(partition, 0)], 0));
        assert_eq!(values_of(&response), [format!("{partition}-0"), format!("{partition}-1")]);
    }
    assert!(!broker.logged().contains("goes offline"), "{}", broker.logged());
    assert!(broker.stop().success());
}
