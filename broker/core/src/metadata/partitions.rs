//! Adding partitions to topics.

use penstock_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use penstock_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use penstock_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use penstock_protocol::{ErrorCode, WireString};

use super::ApiError;
use super::machine::MetadataMachine;
use super::record::MetadataRecord;
use super::shards::ShardChooser;
use super::topics::{check_assignment, check_room, named_twice, new_partition};

pub(super) fn create_partitions(
    machine: &MetadataMachine,
    request: &CreatePartitionsRequest,
) -> (Vec<MetadataRecord>, CreatePartitionsResponse) {
    let twice = named_twice(request.topics.iter().map(|topic| &topic.name));
    let duplicate = || Err(ApiError::new(ErrorCode::InvalidRequest, "Duplicate topic name."));
    let mut growth =
        Growth { machine, chooser: ShardChooser::new(machine), partitions: 0, records: Vec::new() };
    let refused = twice.iter().map(|name| result((*name).clone(), duplicate()));
    let mut results: Vec<_> = refused.collect();
    for topic in request.topics.iter().filter(|topic| !twice.contains(&topic.name)) {
        let outcome = growth.grow(topic);
        results.push(result(topic.name.clone(), outcome));
    }
    let records = if request.validate_only { Vec::new() } else { growth.records };
    (records, CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() })
}

fn result(name: WireString, outcome: Result<(), ApiError>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = match outcome {
        Ok(()) => (ErrorCode::None.code(), None),
        // Kafka tells no message here but its own sentences.
        Err(error) => (error.code.code(), error.message.map(WireString::from)),
    };
    CreatePartitionsTopicResult { name, error_code, error_message }
}

struct Growth<'a> {
    machine: &'a MetadataMachine,
    chooser: ShardChooser,
    partitions: usize,
    records: Vec<MetadataRecord>,
}

impl Growth<'_> {
    fn grow(&mut self, request: &CreatePartitionsTopic) -> Result<(), ApiError> {
        let invalid = |message: String| Err(ApiError::new(ErrorCode::InvalidPartitions, message));
        let image = &self.machine.image;
        let topic = image.topic(&request.name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let (name, count, now) = (&request.name, request.count, topic.partitions.len());
        let wanted = usize::try_from(count).unwrap_or(0);
        if wanted == now {
            return invalid(format!("Topic already has {now} partition(s)."));
        }
        if wanted < now {
            return invalid(format!(
                "The topic {name} currently has {now} partition(s); {count} would not be an increase."
            ));
        }
        let more = wanted - now;
        if let Some(assignments) =
            request.assignments.as_ref().filter(|assignments| assignments.len() != more)
        {
            return Err(ApiError::new(
                ErrorCode::InvalidReplicaAssignment,
                format!(
                    "Attempted to add {more} additional partition(s), but only {} assignment(s) were specified.",
                    assignments.len()
                ),
            ));
        }
        check_room(self.machine, self.partitions, more)?;
        let factor = topic.partitions.first().map(|partition| partition.replicas.len());
        for assignment in request.assignments.iter().flatten() {
            check_assignment(self.machine.image.broker.node_id, &assignment.broker_ids, factor)?;
        }
        self.partitions += more;
        let shards = self.chooser.choose(topic.partitions.iter().map(|partition| partition.shard), more);
        for (index, shard) in (now..wanted).zip(shards) {
            let partition = new_partition(vec![image.broker.node_id], shard);
            self.records.push(partition.to_record(topic.id, index));
        }
        Ok(())
    }
}
