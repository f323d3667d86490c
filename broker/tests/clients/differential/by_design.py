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
    ("IncrementalAlterConfigs (cluster-wide unknown|topic key on a broker)", ".*", "unknown keys are refused"),
    # Better codes than UNKNOWN_SERVER_ERROR, which says that the broker is at fault.
    ("IncrementalAlterConfigs unknown op", ".*", "INVALID_REQUEST"),
    ("Metadata no id", ".*", "such a topic is left out"),
    ("CreatePartitions many", ".*", "POLICY_VIOLATION, as CreateTopics has it"),
    ("Produce codec [57]", ".*", "UNSUPPORTED_COMPRESSION_TYPE"),
    ("Produce .* of garbage", ".*", "INVALID_RECORD"),
    ("ListOffsets isolation 7", ".*", "read as 'uncommitted'"),
    # Broken batches are refused more strictly, or earlier.
    ("Produce (half a batch|a batch without its end|length huge)", r".*\.error_code", "CORRUPT_MESSAGE"),
    ("Produce format [01]", r".*\.error_code", "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
    ("Produce (trailing bytes|deltas from one|log append time bit|producer without epoch)", ".*", "refused"),
    ("Produce transactional", ".*", "transactions are not served yet"),
    ("Produce to one partition twice", ".*", "both are appended"),
    ("Produce .*", r".*\.log_start_offset", "not told with a refusal"),
    ("Produce sequence: duplicate", r".*\.log_append_time_ms", "told for append time alone"),
    ("Metadata makes a colliding one", ".*", "INVALID_TOPIC_EXCEPTION says why"),
    ("ListOffsets one partition twice", ".*", "each is answered"),
    ("OffsetForLeaderEpoch -5", ".*", "no such epoch"),
    ("Fetch unknown (topic|partition)", r".*\.aborted_transactions", "none were asked for"),
    ("Fetch as a follower", ".*", "there are no followers yet"),
    ("ListOffsets -3 of what is left", ".*", "records that were deleted have no timestamps"),
]


def reason(name, path):
    """Why an answer differs in a field, or None where it should not."""
    return next((why for case, field, why in ROWS if re.match(case, name) and re.match(field, path)), None)
