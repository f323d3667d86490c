#![allow(clippy::unwrap_used)]

mod twin;

use penstock_protocol::messages::alter_configs_request;
use penstock_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use penstock_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use penstock_protocol::messages::delete_topics_request::DeleteTopicState;
use penstock_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};

use super::*;
use crate::config::StaticConfig;

fn text(text: &str) -> WireString {
    WireString::from(text)
}

fn overrides(pairs: &[(&str, &str)]) -> Overrides {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A machine with an id source that counts.
struct Bench {
    machine: MetadataMachine,
    last_id: u8,
    log: Vec<MetadataRecord>,
}

impl Bench {
    fn new(pairs: &[(&str, &str)], shards: usize) -> Bench {
        let broker = BrokerConfig::from_static(StaticConfig::new(overrides(pairs)).unwrap()).unwrap();
        Bench { machine: MetadataMachine::new(text("cluster"), broker, shards), last_id: 0, log: Vec::new() }
    }

    fn run(&mut self, command: &Command) -> Answer {
        let before = self.machine.image().clone();
        let last_id = &mut self.last_id;
        let (records, answer) = self.machine.handle(command, &mut || {
            *last_id += 1;
            Uuid([*last_id; 16])
        });
        assert_eq!(*self.machine.image(), before, "handle changes nothing");
        for record in &records {
            let bytes = record.encode().unwrap();
            self.machine.replay(&MetadataRecord::decode(bytes).unwrap()).unwrap();
        }
        self.log.extend(records);
        answer
    }

    /// Creates topics and shows each as `code message`.
    fn create(&mut self, topics: Vec<CreatableTopic>, validate_only: bool) -> Vec<String> {
        let request = CreateTopicsRequest { topics, validate_only, ..CreateTopicsRequest::default() };
        let Answer::CreateTopics(response) = self.run(&Command::CreateTopics(request)) else { panic!() };
        response.topics.iter().map(|topic| show(topic.error_code, topic.error_message.as_ref())).collect()
    }

    fn create_one(&mut self, topic: CreatableTopic) -> String {
        self.create(vec![topic], false).remove(0)
    }

    fn edit(&mut self, kind: i8, name: &str, edits: &[(&str, i8, Option<&str>)]) -> String {
        let configs = edits.iter().map(|(name, operation, value)| AlterableConfig {
            name: text(name),
            config_operation: *operation,
            value: value.map(text),
        });
        let resource = AlterConfigsResource {
            resource_type: kind,
            resource_name: text(name),
            configs: configs.collect(),
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
        let Answer::IncrementalAlterConfigs(response) = self.run(&Command::IncrementalAlterConfigs(request))
        else {
            panic!()
        };
        show(response.responses[0].error_code, response.responses[0].error_message.as_ref())
    }

    fn grow(&mut self, name: &str, count: i32, assignments: Option<Vec<Vec<i32>>>) -> String {
        let assignments = assignments
            .map(|all| all.into_iter().map(|broker_ids| CreatePartitionsAssignment { broker_ids }).collect());
        let topics = vec![CreatePartitionsTopic { name: text(name), count, assignments }];
        let request = CreatePartitionsRequest { topics, ..CreatePartitionsRequest::default() };
        let Answer::CreatePartitions(response) = self.run(&Command::CreatePartitions(request)) else {
            panic!()
        };
        show(response.results[0].error_code, response.results[0].error_message.as_ref())
    }

    fn delete(&mut self, topics: Vec<(Option<&str>, Uuid)>) -> Vec<String> {
        let topics =
            topics.into_iter().map(|(name, topic_id)| DeleteTopicState { name: name.map(text), topic_id });
        let request = DeleteTopicsRequest { topics: topics.collect(), ..DeleteTopicsRequest::default() };
        let Answer::DeleteTopics(response) = self.run(&Command::DeleteTopics(request, 6)) else { panic!() };
        response.responses.iter().map(|topic| show(topic.error_code, topic.error_message.as_ref())).collect()
    }
}

fn show(code: i16, message: Option<&WireString>) -> String {
    format!("{code} {}", message.map_or("", |message| message.as_str())).trim_end().to_owned()
}

fn topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic {
        name: text(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    }
}

fn configured(name: &str, pairs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let configs =
        pairs.iter().map(|(name, value)| CreatableTopicConfig { name: text(name), value: value.map(text) });
    CreatableTopic { configs: configs.collect(), ..topic(name, 1) }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(partition_index, brokers)| CreatableReplicaAssignment {
        partition_index: *partition_index,
        broker_ids: brokers.to_vec(),
    });
    CreatableTopic {
        name: text(name),
        num_partitions: -1,
        replication_factor: -1,
        assignments: assignments.collect(),
        ..Default::default()
    }
}

#[test]
fn topics_are_created_as_kafka_does() {
    let mut bench = Bench::new(&[("num.partitions", "3")], 2);
    assert_eq!(bench.create_one(topic("a.b", 2)), "0");
    assert_eq!(bench.create_one(CreatableTopic { replication_factor: -1, ..topic("defaults", -1) }), "0");
    assert_eq!(bench.machine.image().topic("defaults").unwrap().partitions.len(), 3);
    assert_eq!(bench.create_one(assigned("manual", &[(1, &[1]), (0, &[1])])), "0");
    assert_eq!(bench.create_one(topic("a.b", 2)), "36 Topic 'a.b' already exists.");
    assert_eq!(bench.create_one(topic("a_b", 2)), "17 Topic 'a_b' collides with existing topic: a.b");
    assert!(bench.create_one(topic("a b", 2)).starts_with("17 Topic name is invalid: 'a b' contains"));
    assert_eq!(
        bench.create_one(topic("z", 0)),
        "37 Number of partitions was set to an invalid non-positive value."
    );
    assert_eq!(
        bench.create_one(CreatableTopic { replication_factor: 3, ..topic("z", 1) }),
        "38 Unable to replicate the partition 3 time(s): The target replication factor of 3 cannot be reached because \
         only 1 broker(s) are registered or some brokers have all their log directories cordoned."
    );
    assert_eq!(
        bench.create_one(assigned("z", &[(0, &[1, 2])])),
        "39 The manual partition assignment includes broker 2, but no such broker is registered."
    );
    assert_eq!(
        bench.create_one(assigned("z", &[(0, &[1]), (2, &[1])])),
        "39 partitions should be a consecutive 0-based integer sequence"
    );
    assert_eq!(
        bench.create_one(configured("z", &[("retention.ms", Some("x"))])),
        "40 Invalid value x for configuration retention.ms: Not a number of type LONG"
    );
    assert_eq!(
        bench.create_one(configured("z", &[("retention.ms", None)])),
        "40 Null value not supported for topic configs: retention.ms"
    );
    assert_eq!(
        bench.create(vec![topic("d", 1), topic("e", 1), topic("d", 1)], false),
        ["0", "42 Duplicate topic name."]
    );
    assert_eq!(bench.create(vec![topic("only-checked", 1)], true), ["0"]);
    assert!(bench.machine.image().topic("only-checked").is_none());
    assert_eq!(
        bench.create(vec![topic("big", 9_999), topic("small", 2)], false),
        ["0", "44 Excessively large number of partitions per request."]
    );
}

#[test]
fn a_limit_on_all_partitions() {
    let mut bench = Bench::new(&[("penstock.partitions.max", "3")], 1);
    assert_eq!(bench.create_one(topic("a", 3)), "0");
    let refusal = "44 This broker would have 4 partitions, but penstock.partitions.max is 3.";
    assert_eq!(bench.create_one(topic("b", 1)), refusal);
    assert_eq!(bench.grow("a", 4, None), refusal);
}

#[test]
fn partitions_are_added() {
    let mut bench = Bench::new(&[], 2);
    bench.create_one(topic("a", 2));
    assert_eq!(bench.grow("a", 2, None), "37 Topic already has 2 partition(s).");
    assert_eq!(
        bench.grow("a", 1, None),
        "37 The topic a currently has 2 partition(s); 1 would not be an increase."
    );
    assert_eq!(bench.grow("b", 1, None), "3");
    assert_eq!(
        bench.grow("a", 4, Some(vec![vec![1]])),
        "39 Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."
    );
    assert_eq!(bench.grow("a", 3, Some(vec![vec![1]])), "0");
    assert_eq!(bench.grow("a", 6, None), "0");
    let shards: Vec<usize> =
        bench.machine.image().topic("a").unwrap().partitions.iter().map(|p| p.shard).collect();
    assert_eq!(shards, [0, 1, 0, 1, 0, 1]);
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let mut bench = Bench::new(&[], 1);
    for name in ["a", "b", "c", "d.e"] {
        bench.create_one(topic(name, 1));
    }
    let id = |bench: &Bench, name: &str| bench.machine.image().topic(name).unwrap().id;
    let (b, c) = (id(&bench, "b"), id(&bench, "c"));
    assert_eq!(bench.delete(vec![(Some("a"), Uuid::ZERO), (None, b)]), ["0", "0"]);
    assert!(bench.machine.image().topic_by_id(b).is_none());
    assert_eq!(
        bench.delete(vec![(Some("c"), Uuid::ZERO), (None, c)]),
        ["42 The provided topic name maps to an ID that was already supplied."]
    );
    assert_eq!(bench.delete(vec![(Some("c"), c)]), ["42 You may not specify both topic name and topic id."]);
    assert_eq!(bench.delete(vec![(None, c), (None, c)]), ["42 Duplicate topic id."]);
    assert_eq!(bench.delete(vec![(None, Uuid::ZERO)]), ["42 Neither topic name nor id were specified."]);
    assert!(bench.delete(vec![(None, b)])[0].starts_with("100 "));
    assert!(bench.delete(vec![(Some("a"), Uuid::ZERO)])[0].starts_with("3 "));
    assert_eq!(bench.delete(vec![(Some("d.e"), Uuid::ZERO)]), ["0"]);
    assert_eq!(bench.create_one(topic("d_e", 1)), "0", "a deleted name collides with none");
    let mut bench = Bench::new(&[("delete.topic.enable", "false")], 1);
    bench.create_one(topic("a", 1));
    assert!(bench.delete(vec![(Some("a"), Uuid::ZERO)])[0].starts_with("73 "));
}

#[test]
fn topic_configs_are_edited() {
    const TOPIC: i8 = resource_type::TOPIC;
    let mut bench = Bench::new(&[], 1);
    bench.create_one(configured("a", &[("flush.messages", Some("9"))]));
    let value =
        |bench: &Bench, key: &str| bench.machine.image().topic("a").unwrap().overrides.get(key).cloned();
    assert_eq!(bench.edit(TOPIC, "a", &[("retention.ms", 0, Some("5")), ("flush.messages", 1, None)]), "0");
    assert_eq!(
        (value(&bench, "retention.ms").as_deref(), value(&bench, "flush.messages")),
        (Some("5"), None)
    );
    assert_eq!(bench.machine.image().topic("a").unwrap().config.retention_ms, Some(5));
    assert_eq!(bench.edit(TOPIC, "a", &[("cleanup.policy", 2, Some("compact"))]), "0");
    assert_eq!(value(&bench, "cleanup.policy").as_deref(), Some("delete,compact"));
    assert_eq!(bench.edit(TOPIC, "a", &[("cleanup.policy", 3, Some("delete"))]), "0");
    assert_eq!(value(&bench, "cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(
        bench.edit(TOPIC, "a", &[("retention.ms", 2, Some("7"))]),
        "40 Can't APPEND to key retention.ms because its type is not LIST."
    );
    assert_eq!(bench.edit(TOPIC, "a", &[("x", 0, Some("7"))]), "40 Unknown topic config name: x");
    assert_eq!(bench.edit(TOPIC, "a", &[("x", 9, Some("7"))]), "42 Unknown operations type 9");
    assert_eq!(
        bench.edit(TOPIC, "a", &[("flush.ms", 0, None)]),
        "42 Null value not supported for : flush.ms"
    );
    assert_eq!(bench.edit(TOPIC, "b", &[("flush.ms", 0, Some("5"))]), "3 The topic 'b' does not exist.");
    assert_eq!(bench.edit(TOPIC, "", &[]), "42 Default topic resources are not allowed.");
    assert_eq!(bench.edit(9, "a", &[]), "42 Unknown resource type 9");
    let configs =
        vec![alter_configs_request::AlterableConfig { name: text("flush.ms"), value: Some(text("5")) }];
    let resource = alter_configs_request::AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: text("a"),
        configs,
    };
    let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
    bench.run(&Command::AlterConfigs(request));
    assert_eq!(bench.machine.image().topic("a").unwrap().overrides, overrides(&[("flush.ms", "5")]));
}

#[test]
fn broker_configs_change_topics_that_have_none_of_their_own() {
    const BROKER: i8 = resource_type::BROKER;
    let mut bench = Bench::new(&[], 1);
    bench.create_one(topic("a", 1));
    let retention = |bench: &Bench| bench.machine.image().topic("a").unwrap().config.retention_ms;
    assert_eq!(bench.edit(BROKER, "", &[("log.retention.ms", 0, Some("7"))]), "0");
    assert_eq!(retention(&bench), Some(7));
    assert_eq!(bench.edit(BROKER, "1", &[("log.retention.ms", 0, Some("8"))]), "0");
    assert_eq!(retention(&bench), Some(8));
    // A number is the same however it is written.
    assert_eq!(bench.edit(BROKER, "01", &[("log.retention.ms", 0, Some("9"))]), "0");
    assert_eq!(retention(&bench), Some(9));
    assert_eq!(bench.edit(BROKER, "1", &[("log.retention.ms", 1, None)]), "0");
    assert_eq!(retention(&bench), Some(7));
    assert_eq!(
        bench.edit(BROKER, "1", &[("node.id", 0, Some("8"))]),
        "42 Cannot update these configs dynamically: [node.id]"
    );
    assert_eq!(
        bench.edit(BROKER, "2", &[("log.retention.ms", 0, Some("8"))]),
        "42 Unexpected broker id, expected 1, but received 2"
    );
    assert_eq!(
        bench.edit(BROKER, "x", &[("log.retention.ms", 0, Some("8"))]),
        "42 Node id must be an integer, but it is: x"
    );
    assert_eq!(bench.edit(BROKER, "", &[("x", 0, Some("8"))]), "40 Unknown broker config name: x");
}

#[test]
fn producer_ids_come_in_blocks() {
    let mut bench = Bench::new(&[], 1);
    assert_eq!(bench.run(&Command::AllocateProducerIds), Answer::ProducerIds(Some(0)));
    assert_eq!(bench.run(&Command::AllocateProducerIds), Answer::ProducerIds(Some(1000)));
    bench.machine.image.next_producer_id = i64::MAX;
    assert_eq!(bench.run(&Command::AllocateProducerIds), Answer::ProducerIds(None));
}

/// Restarted with another number of shards, a node moves what it must and no more, and ends up even.
#[test]
fn partitions_follow_the_number_of_shards() {
    let mut bench = Bench::new(&[], 4);
    bench.create_one(topic("a", 8));
    bench.create_one(topic("b", 3));
    for shards in [2usize, 3, 1, 4] {
        let mut machine =
            MetadataMachine::new(text("cluster"), (**bench.machine.image().broker()).clone(), shards);
        bench.log.iter().for_each(|record| machine.replay(record).unwrap());
        bench.machine = machine;
        bench.run(&Command::AssignShards);
        for topic in bench.machine.image().topics() {
            let count = |shard| topic.partitions.iter().filter(|partition| partition.shard == shard).count();
            let counts: Vec<usize> = (0..shards).map(count).collect();
            assert_eq!(counts.iter().sum::<usize>(), topic.partitions.len());
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
        }
        assert_eq!(bench.machine.shard_loads.iter().sum::<usize>(), 11);
        let (records, _) = bench.machine.handle(&Command::AssignShards, &mut || Uuid::ZERO);
        assert_eq!(records, []);
    }
}

#[test]
fn damaged_logs_are_refused() {
    let mut bench = Bench::new(&[], 1);
    bench.create_one(topic("a", 1));
    let before = bench.machine.image().clone();
    let id = before.topic("a").unwrap().id;
    let partition = |topic_id, partition_id, shard| {
        MetadataRecord::Partition(PartitionRecord {
            topic_id,
            partition_id,
            shard,
            ..PartitionRecord::default()
        })
    };
    let wrong = [
        MetadataRecord::Topic(TopicRecord { name: text("a"), topic_id: Uuid([9; 16]) }),
        MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: Uuid([9; 16]) }),
        partition(id, 5, 0),
        partition(id, 1, -1),
        partition(id, 1, i32::MAX),
        MetadataRecord::Config(ConfigRecord {
            resource_type: 2,
            resource_name: text("a"),
            name: text("x"),
            value: Some(text("y")),
        }),
    ];
    for record in wrong {
        assert!(bench.machine.replay(&record).is_err(), "{record:?}");
        assert_eq!(*bench.machine.image(), before);
    }
}
