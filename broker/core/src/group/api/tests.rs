#![allow(clippy::unwrap_used)]

use penstock_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use penstock_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use penstock_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use penstock_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use penstock_protocol::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest,
};
use penstock_protocol::{Encoder, ErrorCode, Message, Uuid, WireString};

use super::find_coordinator::Endpoint;
use super::*;
use crate::config::{BrokerConfig, StaticConfig};
use crate::metadata::{Answer, Command, MetadataImage, MetadataMachine};

/// A cluster of one node with topic `t` of two partitions, id 1, and the offsets' topic.
fn image(with_offsets: bool) -> MetadataImage {
    let broker = BrokerConfig::from_static(StaticConfig::default()).unwrap();
    let mut machine = MetadataMachine::new("cluster".into(), broker, 1);
    let mut ids = 0;
    let mut new_id = || {
        ids += 1;
        Uuid::from_bytes([ids; 16])
    };
    let mut create = |request: CreateTopicsRequest| {
        let (records, answer) = machine.handle(&Command::CreateTopics(request), &mut new_id);
        let Answer::CreateTopics(response) = answer else { panic!("topics are created") };
        assert!(response.topics.iter().all(|topic| topic.error_code == 0), "{response:?}");
        records.iter().for_each(|record| machine.replay(record).unwrap());
    };
    let mut request = find_coordinator::offsets_topic(&group_config(), 1);
    let offsets = request.clone();
    request.topics[0].name = "t".into();
    request.topics[0].num_partitions = 2;
    create(request);
    if with_offsets {
        create(offsets);
    }
    machine.image().clone()
}

fn group_config() -> super::super::GroupConfig {
    BrokerConfig::from_static(StaticConfig::default()).unwrap().group
}

const T: Uuid = Uuid([1; 16]);

#[test]
fn a_coordinator_is_the_leader_of_the_groups_partition() {
    let endpoint = |node| (node == 1).then(|| Endpoint { host: "here".into(), port: 9092 });
    let asked = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    assert!(find_coordinator::lacks_topic(&asked, &image(false)));
    let early = find_coordinator::answer(&asked, 3, &image(false), endpoint);
    assert_eq!((early.error_code, early.node_id), (ErrorCode::CoordinatorNotAvailable.code(), -1));

    let image = image(true);
    assert!(!find_coordinator::lacks_topic(&asked, &image));
    assert_eq!(image.topic("__consumer_offsets").unwrap().partitions.len(), 50);
    let found = find_coordinator::answer(&asked, 0, &image, endpoint);
    assert_eq!((found.error_code, found.node_id, &*found.host, found.port), (0, 1, "here", 9092));
    let keys = vec![WireString::from("a"), WireString::from("b")];
    let asked = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
    let found = find_coordinator::answer(&asked, 4, &image, endpoint);
    assert_eq!(found.coordinators.iter().map(|one| &*one.key).collect::<Vec<&str>>(), ["a", "b"]);
    assert!(found.coordinators.iter().all(|one| one.node_id == 1 && one.error_code == 0));
    let dead = find_coordinator::answer(&asked, 4, &image, |_| None);
    assert_eq!(dead.coordinators[0].error_code, ErrorCode::CoordinatorNotAvailable.code());
    let share = FindCoordinatorRequest { key_type: 2, ..asked };
    let refused = find_coordinator::answer(&share, 6, &image, endpoint);
    assert_eq!(refused.coordinators[0].error_code, ErrorCode::InvalidRequest.code());
}

fn commit(name: &str, topic_id: Uuid, partitions: &[i32]) -> OffsetCommitRequestTopic {
    let partition =
        |index: &i32| OffsetCommitRequestPartition { partition_index: *index, ..Default::default() };
    OffsetCommitRequestTopic {
        name: name.into(),
        topic_id,
        partitions: partitions.iter().map(partition).collect(),
    }
}

fn codes(response: &OffsetCommitResponse) -> Vec<(String, i32, i16)> {
    let topics = response.topics.iter();
    let told = topics.flat_map(|topic| {
        let name = if topic.name.is_empty() { topic.topic_id.to_string() } else { topic.name.to_string() };
        topic
            .partitions
            .iter()
            .map(move |partition| (name.clone(), partition.partition_index, partition.error_code))
    });
    told.collect()
}

#[test]
fn commits_are_asked_for_what_exists_alone() {
    let image = image(false);
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let topics = vec![commit("t", Uuid::ZERO, &[0, 5]), commit("x", Uuid::ZERO, &[0])];
    let mut request = OffsetCommitRequest { topics, ..Default::default() };
    let errors = offset_commit::resolve(&mut request, 9, &image);
    assert_eq!(request.topics, [commit("t", T, &[0])]);
    assert_eq!(codes(&errors), [("t".into(), 5, unknown), ("x".into(), 0, unknown)]);
    let answered = offset_commit::refused(&request, ErrorCode::None);
    let merged = offset_commit::merge(errors, answered);
    assert_eq!(codes(&merged), [("t".into(), 5, unknown), ("t".into(), 0, 0), ("x".into(), 0, unknown)]);
    for version in 2..=10 {
        merged.encode(&mut Encoder::new(), version).unwrap();
    }

    let topics = vec![commit("", T, &[1]), commit("", Uuid::ONE, &[0])];
    let mut request = OffsetCommitRequest { topics, ..Default::default() };
    let errors = offset_commit::resolve(&mut request, 10, &image);
    assert_eq!(request.topics, [commit("t", T, &[1])]);
    assert_eq!(codes(&errors), [(Uuid::ONE.to_string(), 0, ErrorCode::UnknownTopicId.code())]);
}

#[test]
fn deletions_are_asked_for_what_exists_alone() {
    let topic = |name: &str, partition_index| OffsetDeleteRequestTopic {
        name: name.into(),
        partitions: vec![OffsetDeleteRequestPartition { partition_index }],
    };
    let topics = vec![topic("t", 0), topic("t", 7), topic("x", 0)];
    let mut request = OffsetDeleteRequest { group_id: "g".into(), topics };
    let errors = offset_delete::resolve(&mut request, &image(false));
    assert_eq!(request.topics, [topic("t", 0)]);
    let names: Vec<&str> = errors.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["t", "x"]);
    let refused = OffsetDeleteResponse { error_code: 69, ..Default::default() };
    assert_eq!(offset_delete::merge(errors, refused.clone()), refused);
}

fn answered(group: &OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup { error_code: 0, ..offset_fetch::refused(group, 1, ErrorCode::None) }
}

#[test]
fn fetches_of_every_version_are_asked_group_by_group() {
    let image = image(false);
    let topic = OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 1] };
    let old = OffsetFetchRequest { group_id: "g".into(), topics: Some(vec![topic]), ..Default::default() };
    for version in 1..8 {
        let asked = offset_fetch::groups_of(old.clone(), version, &image).remove(0);
        assert_eq!((&*asked.group.group_id, asked.group.topics.as_ref().unwrap().len()), ("g", 1));
        let complete = offset_fetch::complete(answered(&asked.group), asked.errors, version, &image);
        let response = offset_fetch::answer(vec![complete], version);
        assert_eq!(response.topics[0].partitions.len(), 2);
        response.encode(&mut Encoder::new(), version).unwrap();
        let refused = offset_fetch::refused(&asked.group, version, ErrorCode::CoordinatorNotAvailable);
        let refused = offset_fetch::answer(vec![refused], version);
        refused.encode(&mut Encoder::new(), version).unwrap();
        let code = ErrorCode::NotCoordinator.code();
        assert_eq!(refused.error_code, code, "old consumers do not know COORDINATOR_NOT_AVAILABLE");
        assert!(refused.topics.iter().all(|topic| topic.partitions[0].error_code == code));
        assert_eq!(refused.topics.len(), usize::from(version == 1));
    }

    let by_id =
        |topic_id| OffsetFetchRequestTopics { topic_id, partition_indexes: vec![0], ..Default::default() };
    let group = |topics| OffsetFetchRequestGroup { group_id: "g".into(), topics, ..Default::default() };
    let groups = vec![group(Some(vec![by_id(T), by_id(Uuid::ONE)])), group(None)];
    let asked = offset_fetch::groups_of(OffsetFetchRequest { groups, ..Default::default() }, 10, &image);
    assert_eq!(asked[0].group.topics.as_ref().unwrap()[0].name, WireString::from("t"));
    assert_eq!(asked[0].errors[0].partitions[0].error_code, ErrorCode::UnknownTopicId.code());
    // All offsets of a group come without ids; a topic that is gone is left out.
    let named = |name: &str| OffsetFetchRequestTopics { name: name.into(), ..Default::default() };
    let all = answered(&group(Some(vec![named("t"), named("gone")])));
    let complete = offset_fetch::complete(all, Vec::new(), 10, &image);
    assert_eq!(complete.topics.iter().map(|topic| topic.topic_id).collect::<Vec<Uuid>>(), [T]);
    offset_fetch::answer(vec![complete], 10).encode(&mut Encoder::new(), 10).unwrap();
}

#[test]
fn every_refusal_can_be_written_in_every_version() {
    use crate::coordinator::{Machine, Refusable};
    use crate::group::{Caller, GroupCall, GroupMachine, GroupRequest, GroupResponse};
    let requests = [
        (GroupRequest::Join(Default::default()), 0..=9),
        (GroupRequest::Sync(Default::default()), 0..=5),
        (GroupRequest::Heartbeat(Default::default()), 0..=4),
        (GroupRequest::Leave(Default::default()), 0..=5),
    ];
    for (request, versions) in requests {
        for version in versions {
            let caller =
                Caller { version, client_id: "c".into(), client_host: "/::1".into(), fresh_id: Uuid::ONE };
            let call = GroupCall { caller, request: request.clone() };
            let refused = GroupMachine::refuse(&call, ErrorCode::NotCoordinator);
            let encoder = &mut Encoder::new();
            for response in [refused.clone(), refused.refused(ErrorCode::KafkaStorageError)] {
                let (code, written) = match &response {
                    GroupResponse::Join(response) => (response.error_code, response.encode(encoder, version)),
                    GroupResponse::Sync(response) => (response.error_code, response.encode(encoder, version)),
                    GroupResponse::Heartbeat(response) => {
                        (response.error_code, response.encode(encoder, version))
                    }
                    GroupResponse::Leave(response) => {
                        (response.error_code, response.encode(encoder, version))
                    }
                    other => panic!("{other:?}"),
                };
                assert_eq!((code, written), (ErrorCode::NotCoordinator.code(), Ok(())));
            }
        }
    }
}
