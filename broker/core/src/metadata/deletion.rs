//! Deleting topics by name or by id.

use std::collections::{BTreeMap, BTreeSet};

use penstock_protocol::messages::delete_topics_response::DeletableTopicResult;
use penstock_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, RemoveTopicRecord};
use penstock_protocol::{ErrorCode, Uuid, WireString};

use super::ApiError;
use super::machine::MetadataMachine;
use super::record::MetadataRecord;

pub(super) fn delete_topics(
    machine: &MetadataMachine,
    request: &DeleteTopicsRequest,
    version: i16,
) -> (Vec<MetadataRecord>, DeleteTopicsResponse) {
    let mut deletion = Deletion { machine, doomed: BTreeMap::new(), results: Vec::new() };
    if machine.image.broker.delete_topics {
        deletion.decide(request);
    } else {
        deletion.refuse_all(request, version);
    }
    let Deletion { doomed, mut results, .. } = deletion;
    results.extend(doomed.iter().map(|(id, name)| DeletableTopicResult {
        name: Some(name.clone()),
        topic_id: *id,
        ..DeletableTopicResult::default()
    }));
    let records =
        doomed.into_keys().map(|topic_id| MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id }));
    (records.collect(), DeleteTopicsResponse { responses: results, ..DeleteTopicsResponse::default() })
}

/// One DeleteTopics request on its way: what goes, and what was refused.
struct Deletion<'a> {
    machine: &'a MetadataMachine,
    doomed: BTreeMap<Uuid, WireString>,
    results: Vec<DeletableTopicResult>,
}

impl Deletion<'_> {
    fn refuse(&mut self, name: Option<&WireString>, topic_id: Uuid, error: &ApiError) {
        self.results.push(DeletableTopicResult {
            name: name.cloned(),
            topic_id,
            error_code: error.code.code(),
            error_message: error.wire_message(),
        });
    }

    fn refuse_all(&mut self, request: &DeleteTopicsRequest, version: i16) {
        let error = if version < 3 {
            ApiError::new(ErrorCode::InvalidRequest, "Topic deletion is disabled.")
        } else {
            ErrorCode::TopicDeletionDisabled.into()
        };
        request.topic_names.iter().for_each(|name| self.refuse(Some(name), Uuid::ZERO, &error));
        request.topics.iter().for_each(|topic| self.refuse(topic.name.as_ref(), topic.topic_id, &error));
    }

    fn decide(&mut self, request: &DeleteTopicsRequest) {
        let invalid = |message: &str| ApiError::new(ErrorCode::InvalidRequest, message);
        let mut names = Seen::default();
        let mut ids = Seen::default();
        request.topic_names.iter().for_each(|name| names.add(name.clone()));
        for topic in &request.topics {
            match (&topic.name, topic.topic_id) {
                (None, Uuid::ZERO) => {
                    self.refuse(None, Uuid::ZERO, &invalid("Neither topic name nor id were specified."));
                }
                (None, id) => ids.add(id),
                (Some(name), Uuid::ZERO) => names.add(name.clone()),
                (Some(name), id) => {
                    self.refuse(
                        Some(name),
                        id,
                        &invalid("You may not specify both topic name and topic id."),
                    );
                }
            }
        }
        for name in &names.twice {
            self.refuse(Some(name), Uuid::ZERO, &invalid("Duplicate topic name."));
        }
        for id in &ids.twice {
            self.refuse(None, *id, &invalid("Duplicate topic id."));
        }
        let image = &self.machine.image;
        for id in ids.once {
            match image.topic_by_id(id) {
                Some(topic) => _ = self.doomed.insert(id, topic.name.clone()),
                None => self.refuse(None, id, &ErrorCode::UnknownTopicId.into()),
            }
        }
        let mut by_both = ids.twice;
        for name in names.once {
            let Some(topic) = image.topic(&name) else {
                self.refuse(Some(&name), Uuid::ZERO, &ErrorCode::UnknownTopicOrPartition.into());
                continue;
            };
            if by_both.contains(&topic.id) || self.doomed.insert(topic.id, name.clone()).is_some() {
                by_both.insert(topic.id);
                self.doomed.remove(&topic.id);
                let error = invalid("The provided topic name maps to an ID that was already supplied.");
                self.refuse(Some(&name), topic.id, &error);
            }
        }
    }
}

/// Values that were given once, and those that were given more often.
struct Seen<T> {
    once: BTreeSet<T>,
    twice: BTreeSet<T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Seen<T> {
        Seen { once: BTreeSet::new(), twice: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Seen<T> {
    fn add(&mut self, value: T) {
        if self.twice.contains(&value) || !self.once.insert(value.clone()) {
            self.once.remove(&value);
            self.twice.insert(value);
        }
    }
}
