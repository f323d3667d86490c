//! Every API that is advertised, at every version that is advertised: each is answered, well formed, and not by a refusal
//! of its version.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::api_versions_response::ApiVersion;
use penstock_protocol::messages::describe_producers_request::TopicRequest;
use penstock_protocol::messages::produce_request::TopicProduceData;
use penstock_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiVersionsRequest,
    CreatePartitionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest,
    DeleteTopicsRequest, DescribeAclsRequest, DescribeClientQuotasRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeDelegationTokenRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    DescribeTransactionsRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, SyncGroupRequest,
};
use penstock_protocol::{ApiKey, ErrorCode, Request, WireString};

use crate::broker::{Broker, directory};
use crate::client::{Client, produce};

/// Versions of Produce below this one are told for old clients alone (KAFKA-18659) and end the connection, as in Kafka.
const PRODUCE_FROM: i16 = 3;

/// Calls one API at one version; what was answered, printed with the names of its fields.
type Call = Box<dyn Fn(&mut Client, i16) -> String>;

fn one<R: Request + 'static>(make: fn(i16) -> R) -> (i16, Call)
where
    R::Response: std::fmt::Debug,
{
    let call = move |client: &mut Client, version| format!("{:?}", client.call(version, &make(version)));
    (R::API.code(), Box::new(call))
}

/// Those that ask for nothing in particular.
fn plain() -> Vec<(i16, Call)> {
    macro_rules! plain {
        ($($request:ident),* $(,)?) => { vec![$(one(|_| $request::default())),*] };
    }
    plain![
        AlterConfigsRequest,
        AlterPartitionReassignmentsRequest,
        AlterReplicaLogDirsRequest,
        CreatePartitionsRequest,
        CreateTopicsRequest,
        DeleteGroupsRequest,
        DeleteRecordsRequest,
        DeleteTopicsRequest,
        DescribeAclsRequest,
        DescribeClientQuotasRequest,
        DescribeClusterRequest,
        DescribeConfigsRequest,
        DescribeDelegationTokenRequest,
        DescribeGroupsRequest,
        DescribeQuorumRequest,
        DescribeTopicPartitionsRequest,
        DescribeTransactionsRequest,
        DescribeUserScramCredentialsRequest,
        FetchRequest,
        FindCoordinatorRequest,
        HeartbeatRequest,
        IncrementalAlterConfigsRequest,
        InitProducerIdRequest,
        JoinGroupRequest,
        LeaveGroupRequest,
        ListConfigResourcesRequest,
        ListGroupsRequest,
        ListOffsetsRequest,
        ListPartitionReassignmentsRequest,
        ListTransactionsRequest,
        OffsetCommitRequest,
        OffsetDeleteRequest,
        OffsetFetchRequest,
        OffsetForLeaderEpochRequest,
        SyncGroupRequest,
    ]
}

fn calls() -> BTreeMap<i16, Call> {
    let special = [
        one(|_| ApiVersionsRequest {
            client_software_name: WireString::from_static("serve"),
            client_software_version: WireString::from_static("1"),
            ..ApiVersionsRequest::default()
        }),
        one(|_| DescribeLogDirsRequest { topics: None }),
        one(|_| {
            let topic = TopicRequest { name: WireString::from_static(TOPIC), partition_indexes: vec![0, 1] };
            DescribeProducersRequest { topics: vec![topic] }
        }),
        one(|_| ElectLeadersRequest { topic_partitions: None, ..ElectLeadersRequest::default() }),
        one(|version| MetadataRequest {
            // What version 0 cannot say, its empty list means.
            topics: if version == 0 { Some(Vec::new()) } else { None },
            ..MetadataRequest::default()
        }),
        one(|version| {
            let request = produce(TOPIC, 0, "value", -1);
            // Later versions name a topic by its id, of which there is none like this.
            let unnamed = |topic| TopicProduceData { name: WireString::default(), ..topic };
            match version {
                ..=12 => request,
                _ => ProduceRequest {
                    topic_data: request.topic_data.into_iter().map(unnamed).collect(),
                    ..request
                },
            }
        }),
    ];
    let all: Vec<_> = plain().into_iter().chain(special).collect();
    let count = all.len();
    let calls: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(calls.len(), count, "an API stands here twice");
    calls
}

const TOPIC: &str = "surface";

#[test]
fn every_version_that_is_advertised_is_answered() {
    let dir = directory();
    let broker = Broker::start(dir.path(), 2);
    let mut client = Client::connect(&broker.kafka);
    client.create_topic(TOPIC, 2);
    let advertised = client.call(0, &ApiVersionsRequest::default()).api_keys;
    let calls = calls();
    let keys: BTreeSet<i16> = advertised.iter().map(|api| api.api_key).collect();
    assert!(keys.iter().eq(calls.keys()), "{keys:?} are advertised, {:?} are called", calls.keys());
    let refused = format!("error_code: {}", ErrorCode::UnsupportedVersion.code());
    for ApiVersion { api_key, min_version, max_version } in advertised {
        let first = if api_key == ApiKey::Produce.code() { PRODUCE_FROM } else { min_version };
        for version in first..=max_version {
            let answer = calls[&api_key](&mut client, version);
            let refused = answer.contains(&format!("{refused},")) || answer.contains(&format!("{refused} "));
            assert!(!refused, "{api_key} version {version}: {answer}");
        }
    }
}
