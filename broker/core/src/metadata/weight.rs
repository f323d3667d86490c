//! How much work a command is, before it is done: whoever drives the machine does not do much of it at a stretch.

use penstock_protocol::messages::create_topics_request::CreatableTopic;

use super::machine::Command;
use super::{MetadataImage, PARTITIONS_PER_REQUEST_MAX, resource_type};

/// Entries that a topic or resource is worth besides its partitions: its configs are looked at, and told.
const RESOURCE_ENTRIES: usize = 32;

impl Command {
    /// Entries (topics, partitions, configs) that the command makes the machine look at, roughly. Counting them takes
    /// time with the topics and resources that are named, not with their partitions.
    pub fn entries(&self, image: &MetadataImage) -> usize {
        match self {
            Command::CreateTopics(request) => {
                let default = bounded(image.broker().num_partitions);
                sum(request.topics.iter().map(|topic| new_entries(topic, default)))
            }
            Command::DeleteTopics(request, _) => request.topics.len() + request.topic_names.len(),
            Command::CreatePartitions(request) => {
                sum(request.topics.iter().map(|topic| 1 + bounded(topic.count)))
            }
            Command::AlterConfigs(request) => sum(request
                .resources
                .iter()
                .map(|resource| config_entries(image, resource.resource_type, resource.configs.len()))),
            Command::IncrementalAlterConfigs(request) => sum(request
                .resources
                .iter()
                .map(|resource| config_entries(image, resource.resource_type, resource.configs.len()))),
            Command::AllocateProducerIds => 1,
            Command::AssignShards => image.partitions_len(),
        }
    }
}

fn sum(entries: impl Iterator<Item = usize>) -> usize {
    entries.fold(0, usize::saturating_add)
}

/// Partitions that a request may add at all.
fn bounded(partitions: i32) -> usize {
    usize::try_from(partitions).unwrap_or(0).min(PARTITIONS_PER_REQUEST_MAX)
}

fn new_entries(topic: &CreatableTopic, default: usize) -> usize {
    let partitions = match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => default,
        (0, partitions) => bounded(partitions),
        (assigned, _) => assigned,
    };
    RESOURCE_ENTRIES + partitions + topic.configs.len()
}

fn config_entries(image: &MetadataImage, kind: i8, configs: usize) -> usize {
    // A broker's config is the default of every topic's.
    let topics = if kind == resource_type::BROKER { image.topics().len() } else { 0 };
    RESOURCE_ENTRIES + topics + configs
}

#[cfg(test)]
mod tests {
    use penstock_protocol::WireString;
    use penstock_protocol::messages::alter_configs_request::AlterConfigsResource;
    use penstock_protocol::messages::create_partitions_request::CreatePartitionsTopic;
    use penstock_protocol::messages::create_topics_request::CreatableReplicaAssignment;
    use penstock_protocol::messages::{
        AlterConfigsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    };

    use super::*;
    use crate::config::{BrokerConfig, Overrides, StaticConfig};

    fn image() -> MetadataImage {
        let config = StaticConfig::new(Overrides::new()).and_then(BrokerConfig::from_static);
        MetadataImage::empty(WireString::from_static("c"), config.expect("defaults are valid"))
    }

    fn creation(num_partitions: i32, assigned: usize) -> Command {
        let topic = CreatableTopic {
            num_partitions,
            assignments: vec![CreatableReplicaAssignment::default(); assigned],
            ..CreatableTopic::default()
        };
        Command::CreateTopics(CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() })
    }

    #[test]
    fn a_small_request_may_be_much_work_and_none_without_bound() {
        let image = image();
        assert_eq!(creation(-1, 0).entries(&image), RESOURCE_ENTRIES + 1);
        assert_eq!(creation(5000, 0).entries(&image), RESOURCE_ENTRIES + 5000);
        assert_eq!(creation(-1, 7).entries(&image), RESOURCE_ENTRIES + 7);
        assert_eq!(creation(i32::MAX, 0).entries(&image), RESOURCE_ENTRIES + PARTITIONS_PER_REQUEST_MAX);
        assert_eq!(creation(-9, 0).entries(&image), RESOURCE_ENTRIES);
        let topics = vec![CreatePartitionsTopic { count: 40, ..CreatePartitionsTopic::default() }; 3];
        let growth = CreatePartitionsRequest { topics, ..CreatePartitionsRequest::default() };
        assert_eq!(Command::CreatePartitions(growth).entries(&image), 3 * 41);
    }

    #[test]
    fn every_entry_named_counts() {
        let image = image();
        let deletion = DeleteTopicsRequest {
            topic_names: vec![WireString::from_static("t"); 5],
            ..DeleteTopicsRequest::default()
        };
        assert_eq!(Command::DeleteTopics(deletion, 4).entries(&image), 5);
        let resources = vec![AlterConfigsResource { resource_type: 2, ..AlterConfigsResource::default() }; 2];
        let change = AlterConfigsRequest { resources, ..AlterConfigsRequest::default() };
        assert_eq!(Command::AlterConfigs(change).entries(&image), 2 * RESOURCE_ENTRIES);
    }
}
