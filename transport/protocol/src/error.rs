//! The error codes of the protocol.
//!
//! Numbers, names and the retriable flag are those of Apache Kafka; the messages are our own.

macro_rules! error_codes {
    ($($code:literal $kind:ident $variant:ident $name:literal $message:literal;)*) => {
        /// An error code of the protocol. Codes that are not known to us read as `UnknownServerError`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = concat!($name, ": ", $message, ".")] $variant = $code,)*
        }

        impl ErrorCode {
            /// Every code, rising.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$variant,)*];

            /// The error with this number; `None` for a number that is not known.
            #[must_use]
            pub const fn known(code: i16) -> Option<ErrorCode> {
                match code {
                    $($code => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }

            /// The name in capitals, as Kafka's documentation has it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $name,)*
                }
            }

            /// What it means, for an answer that has room for a message.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $message,)*
                }
            }

            /// Whether the same request may succeed later, or elsewhere.
            #[must_use]
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(ErrorCode::$variant => error_codes!(@$kind),)*
                }
            }
        }
    };
    (@retry) => { true };
    (@fatal) => { false };
}

error_codes! {
    -1 fatal UnknownServerError "UNKNOWN_SERVER_ERROR" "the server met a fault that it did not expect";
    0 fatal None "NONE" "no error";
    1 fatal OffsetOutOfRange "OFFSET_OUT_OF_RANGE" "no record has this offset";
    2 retry CorruptMessage "CORRUPT_MESSAGE" "a record batch is damaged, too large, or lacks a key that its topic needs";
    3 retry UnknownTopicOrPartition "UNKNOWN_TOPIC_OR_PARTITION" "no such topic or partition is known here";
    4 fatal InvalidFetchSize "INVALID_FETCH_SIZE" "the size to fetch is not valid";
    5 retry LeaderNotAvailable "LEADER_NOT_AVAILABLE" "the partition has no leader at the moment";
    6 retry NotLeaderOrFollower "NOT_LEADER_OR_FOLLOWER" "this broker neither leads nor follows the partition";
    7 retry RequestTimedOut "REQUEST_TIMED_OUT" "the time allowed for the request is over";
    8 fatal BrokerNotAvailable "BROKER_NOT_AVAILABLE" "the broker cannot be reached";
    9 retry ReplicaNotAvailable "REPLICA_NOT_AVAILABLE" "the replica is not at hand";
    10 fatal MessageTooLarge "MESSAGE_TOO_LARGE" "a record batch is larger than the topic allows";
    11 fatal StaleControllerEpoch "STALE_CONTROLLER_EPOCH" "another controller has taken over";
    12 fatal OffsetMetadataTooLarge "OFFSET_METADATA_TOO_LARGE" "the text beside a committed offset is too long";
    13 retry NetworkException "NETWORK_EXCEPTION" "the connection ended before the answer came";
    14 retry CoordinatorLoadInProgress "COORDINATOR_LOAD_IN_PROGRESS" "the coordinator is still reading its state";
    15 retry CoordinatorNotAvailable "COORDINATOR_NOT_AVAILABLE" "there is no coordinator at the moment";
    16 retry NotCoordinator "NOT_COORDINATOR" "another broker coordinates this";
    17 fatal InvalidTopicException "INVALID_TOPIC_EXCEPTION" "the topic's name is not valid, or the topic does not allow this";
    18 fatal RecordListTooLarge "RECORD_LIST_TOO_LARGE" "the batch does not fit into a segment";
    19 retry NotEnoughReplicas "NOT_ENOUGH_REPLICAS" "fewer replicas are in sync than the topic demands; nothing was written";
    20 retry NotEnoughReplicasAfterAppend "NOT_ENOUGH_REPLICAS_AFTER_APPEND" "the records were written, but fewer replicas have them than the topic demands";
    21 fatal InvalidRequiredAcks "INVALID_REQUIRED_ACKS" "acks is neither -1, 0 nor 1";
    22 fatal IllegalGeneration "ILLEGAL_GENERATION" "the generation is not the group's present one";
    23 fatal InconsistentGroupProtocol "INCONSISTENT_GROUP_PROTOCOL" "the member has no protocol in common with its group";
    24 fatal InvalidGroupId "INVALID_GROUP_ID" "the group id is not valid";
    25 fatal UnknownMemberId "UNKNOWN_MEMBER_ID" "the group has no such member";
    26 fatal InvalidSessionTimeout "INVALID_SESSION_TIMEOUT" "the session timeout is outside the range that this broker allows";
    27 fatal RebalanceInProgress "REBALANCE_IN_PROGRESS" "the group is rebalancing: join again";
    28 fatal InvalidCommitOffsetSize "INVALID_COMMIT_OFFSET_SIZE" "the offset to commit is too large to be stored";
    29 fatal TopicAuthorizationFailed "TOPIC_AUTHORIZATION_FAILED" "not allowed on this topic";
    30 fatal GroupAuthorizationFailed "GROUP_AUTHORIZATION_FAILED" "not allowed on this group";
    31 fatal ClusterAuthorizationFailed "CLUSTER_AUTHORIZATION_FAILED" "not allowed on this cluster";
    32 fatal InvalidTimestamp "INVALID_TIMESTAMP" "a record's timestamp is outside the range that the topic allows";
    33 fatal UnsupportedSaslMechanism "UNSUPPORTED_SASL_MECHANISM" "this SASL mechanism is not offered here";
    34 fatal IllegalSaslState "ILLEGAL_SASL_STATE" "the request does not fit the state of authentication";
    35 fatal UnsupportedVersion "UNSUPPORTED_VERSION" "this version of the request is not served";
    36 fatal TopicAlreadyExists "TOPIC_ALREADY_EXISTS" "a topic of this name exists";
    37 fatal InvalidPartitions "INVALID_PARTITIONS" "the number of partitions is not valid";
    38 fatal InvalidReplicationFactor "INVALID_REPLICATION_FACTOR" "the replication factor is below 1 or above the number of brokers";
    39 fatal InvalidReplicaAssignment "INVALID_REPLICA_ASSIGNMENT" "the assignment of replicas is not valid";
    40 fatal InvalidConfig "INVALID_CONFIG" "the configuration is not valid";
    41 retry NotController "NOT_CONTROLLER" "another node is the controller";
    42 fatal InvalidRequest "INVALID_REQUEST" "the request contradicts itself or the protocol";
    43 fatal UnsupportedForMessageFormat "UNSUPPORTED_FOR_MESSAGE_FORMAT" "record batches of this format are not accepted";
    44 fatal PolicyViolation "POLICY_VIOLATION" "the request breaks a policy of this cluster";
    45 fatal OutOfOrderSequenceNumber "OUT_OF_ORDER_SEQUENCE_NUMBER" "the producer's sequence number does not follow its last one";
    46 fatal DuplicateSequenceNumber "DUPLICATE_SEQUENCE_NUMBER" "the producer's sequence number was seen before";
    47 fatal InvalidProducerEpoch "INVALID_PRODUCER_EPOCH" "the producer's epoch is not the present one";
    48 fatal InvalidTxnState "INVALID_TXN_STATE" "the transaction is not in a state that allows this";
    49 fatal InvalidProducerIdMapping "INVALID_PRODUCER_ID_MAPPING" "the producer id does not belong to the transactional id";
    50 fatal InvalidTransactionTimeout "INVALID_TRANSACTION_TIMEOUT" "the transaction timeout is above the broker's maximum";
    51 retry ConcurrentTransactions "CONCURRENT_TRANSACTIONS" "the transactional id is busy with another operation";
    52 fatal TransactionCoordinatorFenced "TRANSACTION_COORDINATOR_FENCED" "another broker has become the transaction coordinator";
    53 fatal TransactionalIdAuthorizationFailed "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" "not allowed on this transactional id";
    54 fatal SecurityDisabled "SECURITY_DISABLED" "no authorizer is configured";
    55 fatal OperationNotAttempted "OPERATION_NOT_ATTEMPTED" "not tried, because another operation of the request failed";
    56 retry KafkaStorageError "KAFKA_STORAGE_ERROR" "the disk failed";
    57 fatal LogDirNotFound "LOG_DIR_NOT_FOUND" "the broker has no such log directory";
    58 fatal SaslAuthenticationFailed "SASL_AUTHENTICATION_FAILED" "authentication failed";
    59 fatal UnknownProducerId "UNKNOWN_PRODUCER_ID" "nothing is known of this producer id any more";
    60 fatal ReassignmentInProgress "REASSIGNMENT_IN_PROGRESS" "the partition is being moved";
    61 fatal DelegationTokenAuthDisabled "DELEGATION_TOKEN_AUTH_DISABLED" "delegation tokens are not enabled";
    62 fatal DelegationTokenNotFound "DELEGATION_TOKEN_NOT_FOUND" "no such delegation token is known";
    63 fatal DelegationTokenOwnerMismatch "DELEGATION_TOKEN_OWNER_MISMATCH" "neither owner nor renewer of this delegation token";
    64 fatal DelegationTokenRequestNotAllowed "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED" "delegation tokens need a connection that is authenticated otherwise";
    65 fatal DelegationTokenAuthorizationFailed "DELEGATION_TOKEN_AUTHORIZATION_FAILED" "not allowed on this delegation token";
    66 fatal DelegationTokenExpired "DELEGATION_TOKEN_EXPIRED" "the delegation token has expired";
    67 fatal InvalidPrincipalType "INVALID_PRINCIPAL_TYPE" "principals of this type are not supported";
    68 fatal NonEmptyGroup "NON_EMPTY_GROUP" "the group still has members";
    69 fatal GroupIdNotFound "GROUP_ID_NOT_FOUND" "there is no such group";
    70 retry FetchSessionIdNotFound "FETCH_SESSION_ID_NOT_FOUND" "there is no such fetch session";
    71 retry InvalidFetchSessionEpoch "INVALID_FETCH_SESSION_EPOCH" "the fetch session's epoch is not the expected one";
    72 retry ListenerNotFound "LISTENER_NOT_FOUND" "the leader has no listener of the name that this request came in on";
    73 fatal TopicDeletionDisabled "TOPIC_DELETION_DISABLED" "deleting topics is disabled";
    74 retry FencedLeaderEpoch "FENCED_LEADER_EPOCH" "the leader epoch is older than the broker's";
    75 retry UnknownLeaderEpoch "UNKNOWN_LEADER_EPOCH" "the leader epoch is newer than the broker's";
    76 fatal UnsupportedCompressionType "UNSUPPORTED_COMPRESSION_TYPE" "the client's version cannot read how these records are compressed";
    77 fatal StaleBrokerEpoch "STALE_BROKER_EPOCH" "the broker epoch is not the registered one";
    78 retry OffsetNotAvailable "OFFSET_NOT_AVAILABLE" "the new leader does not know the committed end of the log yet";
    79 fatal MemberIdRequired "MEMBER_ID_REQUIRED" "join again with the member id given here";
    80 retry PreferredLeaderNotAvailable "PREFERRED_LEADER_NOT_AVAILABLE" "the preferred leader is not at hand";
    81 fatal GroupMaxSizeReached "GROUP_MAX_SIZE_REACHED" "the group is full";
    82 fatal FencedInstanceId "FENCED_INSTANCE_ID" "another member has taken over this group instance id";
    83 retry EligibleLeadersNotAvailable "ELIGIBLE_LEADERS_NOT_AVAILABLE" "no replica may become leader at the moment";
    84 retry ElectionNotNeeded "ELECTION_NOT_NEEDED" "the partition needs no election";
    85 fatal NoReassignmentInProgress "NO_REASSIGNMENT_IN_PROGRESS" "the partition is not being moved";
    86 fatal GroupSubscribedToTopic "GROUP_SUBSCRIBED_TO_TOPIC" "the group still subscribes to the topic";
    87 fatal InvalidRecord "INVALID_RECORD" "a record breaks a rule of its topic";
    88 retry UnstableOffsetCommit "UNSTABLE_OFFSET_COMMIT" "offsets of an open transaction are pending";
    89 retry ThrottlingQuotaExceeded "THROTTLING_QUOTA_EXCEEDED" "the quota is used up";
    90 fatal ProducerFenced "PRODUCER_FENCED" "a newer producer has taken over the transactional id";
    91 fatal ResourceNotFound "RESOURCE_NOT_FOUND" "there is no such resource";
    92 fatal DuplicateResource "DUPLICATE_RESOURCE" "the request names a resource twice";
    93 fatal UnacceptableCredential "UNACCEPTABLE_CREDENTIAL" "the credential does not meet the rules";
    94 fatal InconsistentVoterSet "INCONSISTENT_VOTER_SET" "sender or receiver is not among the expected voters";
    95 fatal InvalidUpdateVersion "INVALID_UPDATE_VERSION" "the feature cannot be moved to this level";
    96 fatal FeatureUpdateFailed "FEATURE_UPDATE_FAILED" "the features could not be updated";
    97 fatal PrincipalDeserializationFailure "PRINCIPAL_DESERIALIZATION_FAILURE" "the forwarded principal cannot be read";
    98 fatal SnapshotNotFound "SNAPSHOT_NOT_FOUND" "there is no such snapshot";
    99 fatal PositionOutOfRange "POSITION_OUT_OF_RANGE" "the position lies outside of the snapshot";
    100 retry UnknownTopicId "UNKNOWN_TOPIC_ID" "no topic with this id is known here";
    101 fatal DuplicateBrokerRegistration "DUPLICATE_BROKER_REGISTRATION" "another broker runs under this id";
    102 fatal BrokerIdNotRegistered "BROKER_ID_NOT_REGISTERED" "no broker is registered under this id";
    103 retry InconsistentTopicId "INCONSISTENT_TOPIC_ID" "the topic id is not that of the log";
    104 fatal InconsistentClusterId "INCONSISTENT_CLUSTER_ID" "the request is meant for another cluster";
    105 fatal TransactionalIdNotFound "TRANSACTIONAL_ID_NOT_FOUND" "there is no such transactional id";
    106 retry FetchSessionTopicIdError "FETCH_SESSION_TOPIC_ID_ERROR" "the fetch session mixes requests with and without topic ids";
    107 fatal IneligibleReplica "INELIGIBLE_REPLICA" "a replica of the proposed set may not join it";
    108 fatal NewLeaderElected "NEW_LEADER_ELECTED" "the change was made and led to a new leader";
    109 fatal OffsetMovedToTieredStorage "OFFSET_MOVED_TO_TIERED_STORAGE" "the offset lies in tiered storage";
    110 fatal FencedMemberEpoch "FENCED_MEMBER_EPOCH" "the member epoch was fenced: give up all partitions and join again";
    111 fatal UnreleasedInstanceId "UNRELEASED_INSTANCE_ID" "another member still holds this group instance id";
    112 fatal UnsupportedAssignor "UNSUPPORTED_ASSIGNOR" "the group does not know this assignor";
    113 fatal StaleMemberEpoch "STALE_MEMBER_EPOCH" "the member epoch is outdated: heartbeat, then try again";
    114 fatal MismatchedEndpointType "MISMATCHED_ENDPOINT_TYPE" "the request belongs to an endpoint of another kind";
    115 fatal UnsupportedEndpointType "UNSUPPORTED_ENDPOINT_TYPE" "endpoints of this kind are not supported";
    116 fatal UnknownControllerId "UNKNOWN_CONTROLLER_ID" "no such controller is known";
    117 fatal UnknownSubscriptionId "UNKNOWN_SUBSCRIPTION_ID" "the telemetry subscription is unknown or outdated";
    118 fatal TelemetryTooLarge "TELEMETRY_TOO_LARGE" "the telemetry is larger than the broker accepts";
    119 fatal InvalidRegistration "INVALID_REGISTRATION" "the controller refuses this registration";
    120 fatal TransactionAbortable "TRANSACTION_ABORTABLE" "the transaction failed and can be aborted to go on";
    121 fatal InvalidRecordState "INVALID_RECORD_STATE" "the records are not in a state that allows this acknowledgement";
    122 retry ShareSessionNotFound "SHARE_SESSION_NOT_FOUND" "there is no such share session";
    123 retry InvalidShareSessionEpoch "INVALID_SHARE_SESSION_EPOCH" "the share session's epoch is not the expected one";
    124 fatal FencedStateEpoch "FENCED_STATE_EPOCH" "the epoch of the share group's state is outdated";
    125 fatal InvalidVoterKey "INVALID_VOTER_KEY" "the voter key is not the receiver's";
    126 fatal DuplicateVoter "DUPLICATE_VOTER" "the voter is in the set already";
    127 fatal VoterNotFound "VOTER_NOT_FOUND" "the voter is not in the set";
    128 fatal InvalidRegularExpression "INVALID_REGULAR_EXPRESSION" "the regular expression is not valid";
    129 fatal RebootstrapRequired "REBOOTSTRAP_REQUIRED" "the client's metadata is of no use any more: start from the bootstrap servers";
    130 fatal StreamsInvalidTopology "STREAMS_INVALID_TOPOLOGY" "the topology is not valid";
    131 fatal StreamsInvalidTopologyEpoch "STREAMS_INVALID_TOPOLOGY_EPOCH" "the topology epoch is not valid";
    132 fatal StreamsTopologyFenced "STREAMS_TOPOLOGY_FENCED" "the topology epoch is outdated";
    133 retry ShareSessionLimitReached "SHARE_SESSION_LIMIT_REACHED" "there are as many share sessions as allowed";
    134 fatal GroupDeletionFailed "GROUP_DELETION_FAILED" "the group could not be deleted";
    135 fatal StreamsTopologyDescriptionUpdateFailed "STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED" "the description of the topology could not be stored";
    136 fatal ControllerIdNotRegistered "CONTROLLER_ID_NOT_REGISTERED" "no controller is registered under this id";
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The error with this number; a number that is not known reads as `UnknownServerError`.
    #[must_use]
    pub fn from_code(code: i16) -> ErrorCode {
        ErrorCode::known(code).unwrap_or(ErrorCode::UnknownServerError)
    }

    /// Whether this is no error.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == ErrorCode::None
    }
}

impl From<ErrorCode> for i16 {
    fn from(error: ErrorCode) -> i16 {
        error.code()
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn numbers_have_no_gap_and_lead_back() {
        let last = ErrorCode::ALL.last().map(|error| error.code());
        assert_eq!(last, Some(136));
        for (at, error) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(error.code() + 1), Ok(at));
            assert_eq!(ErrorCode::known(error.code()), Some(*error));
        }
        assert_eq!(ErrorCode::from_code(-2), ErrorCode::UnknownServerError);
        assert_eq!(ErrorCode::from_code(i16::MAX), ErrorCode::UnknownServerError);
        assert!(ErrorCode::None.is_none() && !ErrorCode::None.is_retriable());
    }

    #[test]
    fn some_numbers_by_name() {
        let expected = [
            (ErrorCode::OffsetOutOfRange, 1, false),
            (ErrorCode::UnknownTopicOrPartition, 3, true),
            (ErrorCode::UnsupportedVersion, 35, false),
            (ErrorCode::KafkaStorageError, 56, true),
            (ErrorCode::UnknownTopicId, 100, true),
            (ErrorCode::ShareSessionLimitReached, 133, true),
        ];
        for (error, code, retriable) in expected {
            assert_eq!((error.code(), error.is_retriable()), (code, retriable));
        }
    }
}
