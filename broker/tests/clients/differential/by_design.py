"""Where penstock's answers are meant to differ from Apache Kafka's.

Each row: a pattern for the case's name, a pattern for the field's path (both from their beginnings), and why.
"""

import re

ROWS = [
    # Configs.
    ("(CreateTopics|DescribeConfigs)", r".*\.flush\.messages\.", "flushed before it is acknowledged, unless told not to"),
    ("DescribeConfigs", r".*\.log\.flush\.interval\.messages\.", "the same for the broker"),
    ("(CreateTopics|DescribeConfigs)", r".*\.min\.insync\.replicas", "Kafka's format tool sets it for the cluster"),
    ("DescribeConfigs this broker", r".*\.configs\.penstock\.", "keys of our own"),
    ("DescribeConfigs this broker", r".*\.configs\.max\.connections\.", "bounded by default"),
    ("DescribeConfigs this broker", r".*\.configs\.(advertised\.listeners|listeners|log\.dirs?|node\.id|broker\.id"
     r"|process\.roles|controller\.\w+\.\w+|inter\.broker\.listener\.name|offsets\.topic\.replication\.factor"
     r"|transaction\.state\.log\.[\w.]+?|group\.initial\.rebalance\.delay\.ms)\.",
     "the Kafka that was asked was started with others"),
    ("DescribeConfigs this broker", r".*\.configs\.(listener\.security\.protocol\.map|principal\.builder\.class)"
     r"\.read_only", "cannot be changed while it runs"),
    ("DescribeConfigs this broker", r".*\.configs\.socket\.(receive|send)\.buffer\.bytes\.", "left to the kernel unless set"),
    ("DescribeConfigs this broker", r".*\.configs\.socket\.listen\.backlog\.size\.",
     "clients that come all at once are held until a busy core accepts them"),
    ("IncrementalAlterConfigs (cluster-wide unknown|topic key on a broker)", r".*\.error_code$", "unknown keys are refused"),
    # Better codes than UNKNOWN_SERVER_ERROR, which says that the broker is at fault.
    ("IncrementalAlterConfigs unknown op", r".*\.error_code$", "INVALID_REQUEST"),
    ("Metadata no id", r"\.(brokers|controller_id|error_code|topics\[0\]\.error_code)$",
     "INVALID_REQUEST for the topic, beside the brokers; Kafka fails as a whole"),
    ("CreatePartitions many", r".*\.error_code$", "POLICY_VIOLATION, as CreateTopics has it"),
    ("Produce codec [57]", r".*\.error_code$", "UNSUPPORTED_COMPRESSION_TYPE"),
    ("Produce .* of garbage", r".*\.error_code$", "INVALID_RECORD"),
    # Broken batches are refused more strictly, or earlier.
    ("Produce (half a batch|a batch without its end|length huge)", r".*\.error_code", "CORRUPT_MESSAGE"),
    ("Produce format [01]", r".*\.error_code", "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
    ("Produce (trailing bytes|deltas from one|log append time bit|producer without epoch)",
     r".*\.(error_code|base_offset|record_errors)$", "refused"),
    ("Produce transactional", r".*\.error_code$", "transactions are not served yet"),
    ("Produce to one partition twice", r"\.responses\[0\]\.partition_responses$", "both are appended"),
    ("Produce .*", r".*\.log_start_offset", "not told with a refusal"),
    ("Produce sequence: duplicate", r".*\.log_append_time_ms", "told for append time alone"),
    ("Metadata makes a colliding one", r".*\.error_code$", "INVALID_TOPIC_EXCEPTION says why"),
    ("ListOffsets one partition twice", r"\.topics\[0\]\.partitions$", "refused each time it is named, not once"),
    ("Fetch as a follower", r".*\.(error_code|high_watermark|last_stable_offset|log_start_offset|records)$",
     "there are no followers yet"),
    # Reads of administrators.
    ("DescribeConfigs of (client metrics|a group)$", r"\.results\[0\]\.configs\.", "none can be set yet"),
    ("DescribeProducers partition twice", r".*\.error_(code|message)$", "each is told once: the answer is bounded"),
    ("DescribeAcls type 0", r"\.", "answered as any other; Kafka cuts the connection"),
    ("DescribeQuorum the log$", r".*\.listeners\[0\]\.name$", "the quorum of one has no listener of its own"),
    ("(ElectLeaders (both|partition twice)|DescribeQuorum two partitions)", r".*\[1\]\.error_message$",
     "said once for each topic: the answer is bounded"),
    ("ListConfigResources loggers", r"\.config_resources$", "there are no levels of loggers to set"),
    ("ListOffsets -3 of what is left", r".*\.(leader_epoch|offset|timestamp)$",
     "records that were deleted have no timestamps"),
]


def excuse(name, path):
    """The first row that says why an answer differs in a field, or None where it should not."""
    return next((row for row in ROWS if re.match(row[0], name) and re.match(row[1], path)), None)
