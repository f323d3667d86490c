//! DescribeLogDirs (35), versions 1-5, and AlterReplicaLogDirs (34), versions 1-2: KIP-113, KIP-827 (bytes of the volume,
//! 4), KIP-1066 (cordoned directories, 5). A broker has one data directory, which holds all its partitions.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use penstock_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use penstock_protocol::messages::{
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use crate::metadata::{MetadataImage, TopicImage};

/// A partition whose log is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPlace {
    /// Name of its topic.
    pub topic: WireString,
    /// Id of its topic.
    pub topic_id: Uuid,
    /// Its number.
    pub partition: i32,
    /// The shard that the metadata places it on.
    pub shard: usize,
}

/// The volume that holds the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// What this process may still write, in bytes.
    pub usable_bytes: u64,
}

/// Partitions that the request asks about, each once, by topic name and number; all where it names no topics. What does
/// not exist is passed over, as in Apache Kafka.
pub fn partitions_to_measure(request: &DescribeLogDirsRequest, image: &MetadataImage) -> Vec<DirectoryPlace> {
    let Some(topics) = &request.topics else {
        return image.topics().flat_map(|topic| places(topic, 0..)).collect();
    };
    let mut named: BTreeMap<&WireString, BTreeSet<i32>> = BTreeMap::new();
    for topic in topics {
        named.entry(&topic.topic).or_default().extend(&topic.partitions);
    }
    let known = named.into_iter().filter_map(|(name, numbers)| Some((image.topic(name)?, numbers)));
    known.flat_map(|(topic, numbers)| places(topic, numbers)).collect()
}

fn places(
    topic: &TopicImage,
    numbers: impl IntoIterator<Item = i32>,
) -> impl Iterator<Item = DirectoryPlace> {
    // No number beyond the last partition is tried.
    let end = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
    let numbers = numbers.into_iter().take_while(move |number| *number < end);
    numbers.filter_map(|number| {
        let shard = topic.partition(number)?.shard;
        Some(DirectoryPlace { topic: topic.name.clone(), topic_id: topic.id, partition: number, shard })
    })
}

/// The answer about the data directory at `path`: its volume, `None` if that cannot be asked, and the sizes in bytes of
/// the logs of `places`, in their order; those without are not there any more.
pub fn describe_log_dirs(
    path: &str,
    volume: Option<Volume>,
    places: &[DirectoryPlace],
    sizes: &[Option<u64>],
) -> DescribeLogDirsResponse {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut topics: Vec<DescribeLogDirsTopic> = Vec::new();
    for (place, size) in places.iter().zip(sizes).filter_map(|(place, size)| Some((place, (*size)?))) {
        if topics.last().is_none_or(|topic| topic.name != place.topic) {
            topics.push(DescribeLogDirsTopic { name: place.topic.clone(), partitions: Vec::new() });
        }
        let topic = topics.last_mut().expect("it was added if there was none");
        topic.partitions.push(DescribeLogDirsPartition {
            partition_index: place.partition,
            partition_size: signed(size),
            // The leader lags behind nobody, and no log is on its way to another directory.
            offset_lag: 0,
            is_future_key: false,
        });
    }
    let error = if volume.is_some() { ErrorCode::None } else { ErrorCode::KafkaStorageError };
    let result = DescribeLogDirsResult {
        error_code: error.code(),
        log_dir: WireString::from(path),
        topics,
        total_bytes: volume.map_or(-1, |volume| signed(volume.total_bytes)),
        usable_bytes: volume.map_or(-1, |volume| signed(volume.usable_bytes)),
        ..DescribeLogDirsResult::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

/// Says of each partition whether it may be where the request wants it: in the directory at `path`, where it is already.
/// A partition named twice goes by the last time.
pub fn alter_replica_log_dirs(
    request: &AlterReplicaLogDirsRequest,
    path: &str,
    image: &MetadataImage,
) -> AlterReplicaLogDirsResponse {
    let mut outcomes: BTreeMap<&WireString, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    for dir in &request.dirs {
        for topic in dir.topics.iter().filter(|topic| !topic.partitions.is_empty()) {
            let (here, known) = (dir.path == path, image.topic(&topic.name));
            let outcome = |number| match known.and_then(|topic| topic.partition(number)) {
                _ if !here => ErrorCode::LogDirNotFound,
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) => ErrorCode::None,
            };
            let numbers = topic.partitions.iter().map(|number| (*number, outcome(*number)));
            outcomes.entry(&topic.name).or_default().extend(numbers);
        }
    }
    let results = outcomes.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition_index, error)| {
            AlterReplicaLogDirPartitionResult { partition_index, error_code: error.code() }
        });
        AlterReplicaLogDirTopicResult { topic_name: name.clone(), partitions: partitions.collect() }
    });
    AlterReplicaLogDirsResponse { results: results.collect(), ..AlterReplicaLogDirsResponse::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_with_their_partitions() {
        let place = |topic: &'static str, partition| DirectoryPlace {
            topic: WireString::from_static(topic),
            topic_id: Uuid::ZERO,
            partition,
            shard: 0,
        };
        let places = [place("a", 0), place("a", 1), place("b", 0), place("c", 0)];
        let volume = Volume { total_bytes: 100, usable_bytes: u64::MAX };
        let told = describe_log_dirs("/data", Some(volume), &places, &[Some(5), None, Some(7), None]);
        let [dir] = told.results.as_slice() else { panic!("one directory: {told:?}") };
        assert_eq!((dir.error_code, &dir.log_dir), (0, &WireString::from_static("/data")));
        assert_eq!((dir.total_bytes, dir.usable_bytes), (100, i64::MAX));
        let sizes = |topic: &DescribeLogDirsTopic| {
            let sizes = topic.partitions.iter().map(|one| (one.partition_index, one.partition_size));
            (topic.name.to_string(), sizes.collect::<Vec<_>>())
        };
        let told: Vec<_> = dir.topics.iter().map(sizes).collect();
        assert_eq!(told, [("a".to_owned(), vec![(0, 5)]), ("b".to_owned(), vec![(0, 7)])]);
    }

    #[test]
    fn a_volume_that_cannot_be_asked_is_an_error_of_the_directory() {
        let told = describe_log_dirs("/data", None, &[], &[]);
        assert_eq!(told.results[0].error_code, ErrorCode::KafkaStorageError.code());
        assert_eq!((told.error_code, told.results[0].total_bytes), (0, -1));
    }
}
