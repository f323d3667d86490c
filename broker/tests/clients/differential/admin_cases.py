"""Requests about topics, configs and the cluster. A case is a name and calls that are made to each broker in turn."""

from harness import eventually

TOPIC, BROKER, BROKER_LOGGER = 2, 4, 8
NO_UUID = "00000000-0000-0000-0000-000000000000"


def topic(name, partitions=1, replicas=1, assignments=(), **configs):
    return {
        "name": name, "num_partitions": partitions, "replication_factor": replicas,
        "assignments": [{"partition_index": p, "broker_ids": list(b)} for p, b in assignments],
        "configs": [{"name": k.replace("_", "."), "value": v} for k, v in configs.items()],
    }


def setup(side, prefix):
    """The topics that the cases use; their ids are kept."""
    topics = [
        topic(f"{prefix}.one"), topic(f"{prefix}.two", 2), topic(f"{prefix}.compact", cleanup_policy="compact"),
        topic(f"{prefix}.small", max_message_bytes="1000"), topic(f"{prefix}.time", message_timestamp_type="LogAppendTime"),
        topic(f"{prefix}.pid"), topic(f"{prefix}.late"), topic(f"{prefix}.odd"),
    ]
    answer = side.call("CreateTopics", 7, topics=topics, timeout_ms=30_000)
    assert all(t["error_code"] == 0 for t in answer["topics"]), answer

    def probe():  # for a moment after a creation, Kafka refuses some requests
        asked = [{"name": t["name"], "partitions": [{"partition_index": 0, "timestamp": -1}]} for t in topics]
        told = side.call("ListOffsets", 5, replica_id=-1, topics=asked)["topics"]
        return all(p["error_code"] == 0 for t in told for p in t["partitions"])

    eventually(probe, "the topics answer")
    side.kept["ids"] = {t["name"]: t["topic_id"] for t in answer["topics"]}
    side.kept["node"] = side.call("Metadata", 12, topics=[])["controller_id"]


def create_topics(prefix):
    bad = {
        "no partitions": topic("a", 0), "minus two partitions": topic("a", -2), "no replicas": topic("a", 1, 0),
        "minus two replicas": topic("a", 1, -2), "three replicas": topic("a", 1, 3), "defaults": topic("a", -1, -1),
        "exists": topic("one"), "empty name": topic(""), "dot": topic("."), "dots": topic(".."),
        "slash": topic("a/b"), "space": topic("a b"), "long": topic("x" * 250), "unicode": topic("\u00e9"),
        "internal": topic("__x"),
        "assignment of nobody": topic("a", -1, -1, [(0, [77])]),
        "assignment with partitions": topic("a", 1, 1, [(0, [1])]),
        "assignment not from zero": topic("a", -1, -1, [(1, [1])]),
        "assignment with a hole": topic("a", -1, -1, [(0, [1]), (2, [1])]),
        "assignment twice": topic("a", -1, -1, [(0, [1]), (0, [1])]),
        "assignment of one broker twice": topic("a", -1, -1, [(0, [1, 1])]),
        "assignment of none": topic("a", -1, -1, [(0, [])]),
        "unknown key": topic("a", no_such_key="1"), "null value": topic("a", retention_ms=None),
        "not a number": topic("a", retention_ms="soon"), "below": topic("a", retention_ms="-2"),
        "empty number": topic("a", retention_ms=""), "no policy": topic("a", cleanup_policy="shred"),
        "empty policy": topic("a", cleanup_policy=""), "both policies": topic("a", cleanup_policy="compact,delete"),
        "policy with spaces": topic("a", cleanup_policy="compact, delete"),
        "codec": topic("a", compression_type="brotli"), "ratio": topic("a", min_cleanable_dirty_ratio="1.5"),
        "min isr": topic("a", min_insync_replicas="0"), "many isr": topic("a", min_insync_replicas="5"),
        "segment bytes": topic("a", segment_bytes="13"), "boolean": topic("a", preallocate="yes"),
        "boolean case": topic("a", preallocate="TRUE"), "timestamp type": topic("a", message_timestamp_type="now"),
        "old format": topic("a", message_format_version="2.0"), "padded": topic("a", retention_ms=" 5000 "),
        "local retention": topic("a", local_retention_ms="100", retention_ms="50"),
        "remote storage": topic("a", remote_storage_enable="true"),
        "throttled": topic("a", leader_replication_throttled_replicas="*"),
        "throttled badly": topic("a", leader_replication_throttled_replicas="1;2"),
        "flush": topic("a", flush_messages="0"), "gzip level": topic("a", compression_gzip_level="10"),
        "zstd level": topic("a", compression_zstd_level="-200000"), "lz4 level": topic("a", compression_lz4_level="0"),
        "duplicate key": {**topic("a"), "configs": [{"name": "retention.ms", "value": "5"},
                                                    {"name": "retention.ms", "value": "6"}]},
    }
    for name, wanted in bad.items():
        wanted = {**wanted, "name": f"{prefix}.{wanted['name']}" if wanted["name"] in ("a", "one") else wanted["name"]}
        yield f"CreateTopics {name}", "CreateTopics", None if name in ("exists", "not a number") else 7, {
            "topics": [wanted], "timeout_ms": 5000, "validate_only": True}
    yield "CreateTopics collides", "CreateTopics", 7, {
        "topics": [topic(f"{prefix}_one")], "timeout_ms": 5000, "validate_only": True}
    yield "CreateTopics twice in one", "CreateTopics", None, {
        "topics": [topic(f"{prefix}.t"), topic(f"{prefix}.t"), topic(f"{prefix}.u")], "timeout_ms": 5000,
        "validate_only": True}
    yield "CreateTopics none", "CreateTopics", None, {"topics": [], "timeout_ms": 5000}
    yield "CreateTopics answer", "CreateTopics", 7, {
        "topics": [topic(f"{prefix}.new", 2, 1, segment_bytes="2000000")], "timeout_ms": 5000}


def partitions_and_deletion(prefix):
    def grow(count, assignments=None, name="two", **more):
        return {"topics": [{"name": f"{prefix}.{name}", "count": count, "assignments": assignments}],
                "timeout_ms": 5000, "validate_only": True, **more}

    for name, fields in {
        "fewer": grow(1), "same": grow(2), "zero": grow(0), "negative": grow(-1), "unknown": grow(3, name="missing"),
        "valid": grow(3), "assignment of nobody": grow(3, [{"broker_ids": [77]}]),
        "two assignments for one": grow(3, [{"broker_ids": [1]}, {"broker_ids": [1]}]),
        "assignment of none": grow(3, [{"broker_ids": []}]), "no assignments": grow(3, []), "many": grow(20_000),
    }.items():
        yield f"CreatePartitions {name}", "CreatePartitions", None, fields
    twice = grow(3)
    twice["topics"] *= 2
    yield "CreatePartitions twice in one", "CreatePartitions", None, twice

    yield "DeleteTopics unknown", "DeleteTopics", None, {
        "topic_names": [f"{prefix}.missing"], "topics": [{"name": f"{prefix}.missing"}], "timeout_ms": 5000}
    yield "DeleteTopics bad name", "DeleteTopics", None, {
        "topic_names": ["a/b"], "topics": [{"name": "a/b"}], "timeout_ms": 5000}
    yield "DeleteTopics none", "DeleteTopics", None, {"topic_names": [], "topics": [], "timeout_ms": 5000}
    yield "DeleteTopics unknown id", "DeleteTopics", 6, {
        "topics": [{"topic_id": "12345678-1234-1234-1234-123456789abc"}], "timeout_ms": 5000}
    yield "DeleteTopics neither", "DeleteTopics", 6, {"topics": [{"name": None}], "timeout_ms": 5000}
    yield "DeleteTopics same twice", "DeleteTopics", 6, {
        "topics": [{"name": f"{prefix}.new"}, {"name": f"{prefix}.new"}], "timeout_ms": 5000}
    yield "DeleteTopics by name", "DeleteTopics", 6, {"topics": [{"name": f"{prefix}.new"}], "timeout_ms": 5000}


def configs(prefix):
    name = f"{prefix}.one"

    def describe(kind, resource, keys=None, **more):
        return {"resources": [{"resource_type": kind, "resource_name": resource, "configuration_keys": keys}], **more}

    everything = {"include_synonyms": True, "include_documentation": False}
    for label, fields in {
        "topic": describe(TOPIC, name, **everything), "topic keys": describe(TOPIC, name, ["retention.ms", "nope"]),
        "no keys": describe(TOPIC, name, []), "unknown topic": describe(TOPIC, f"{prefix}.missing"),
        "bad topic": describe(TOPIC, "a/b"), "empty topic": describe(TOPIC, ""),
        "small topic": describe(TOPIC, f"{prefix}.small", ["max.message.bytes"], **everything),
        "broker 77": describe(BROKER, "77"), "broker x": describe(BROKER, "x"), "type 99": describe(99, "x"),
        "unknown type": describe(0, "x"), "default broker": describe(BROKER, "", **everything),
        "logger of 77": describe(BROKER_LOGGER, "77"),
    }.items():
        yield f"DescribeConfigs {label}", "DescribeConfigs", None, fields
    yield "DescribeConfigs this broker", "DescribeConfigs", 4, lambda side: describe(
        BROKER, str(side.kept["node"]), **everything)

    def alter(entries, kind=TOPIC, resource=name, valid_only=True):
        return {"resources": [{"resource_type": kind, "resource_name": resource, "configs": [
            {"name": k, "config_operation": op, "value": v} for k, op, v in entries]}], "validate_only": valid_only}

    for label, fields in {
        "set": alter([("retention.ms", 0, "5")]), "unknown op": alter([("retention.ms", 9, "5")]),
        "append to a number": alter([("retention.ms", 2, "5")]), "set null": alter([("retention.ms", 0, None)]),
        "append": alter([("cleanup.policy", 2, "compact")]), "append null": alter([("cleanup.policy", 2, None)]),
        "append again": alter([("cleanup.policy", 2, "delete")]), "subtract": alter([("cleanup.policy", 3, "compact")]),
        "subtract all": alter([("cleanup.policy", 3, "delete")]), "delete unset": alter([("retention.ms", 1, None)]),
        "key twice": alter([("retention.ms", 0, "5"), ("retention.ms", 0, "6")]), "nothing": alter([]),
        "unknown key": alter([("nope", 0, "5")]), "delete unknown key": alter([("nope", 1, None)]),
        "bad value": alter([("retention.ms", 0, "soon")]), "unknown topic": alter([], resource=f"{prefix}.missing"),
        "bad topic": alter([], resource="a/b"), "type 99": alter([], kind=99),
        "read-only": alter([("num.partitions", 0, "5")], BROKER, ""),
        "cluster-wide": alter([("log.retention.ms", 0, "5")], BROKER, ""),
        "cluster-wide bad": alter([("log.retention.ms", 0, "x")], BROKER, ""),
        "cluster-wide unknown": alter([("nope", 0, "x")], BROKER, ""),
        "broker x": alter([("log.retention.ms", 0, "5")], BROKER, "x"),
        "topic key on a broker": alter([("retention.ms", 0, "5")], BROKER, ""),
        "many": alter([("retention.ms", 0, "5"), ("nope", 0, "1")]),
    }.items():
        yield f"IncrementalAlterConfigs {label}", "IncrementalAlterConfigs", None, fields
    same = alter([("retention.ms", 0, "5")])
    same["resources"] *= 2
    yield "IncrementalAlterConfigs resource twice", "IncrementalAlterConfigs", None, same

    def replace(entries, kind=TOPIC, resource=name):
        return {"resources": [{"resource_type": kind, "resource_name": resource, "configs": [
            {"name": k, "value": v} for k, v in entries]}], "validate_only": True}

    for label, fields in {
        "set": replace([("retention.ms", "5")]), "null": replace([("retention.ms", None)]),
        "bad": replace([("retention.ms", "x")]), "unknown key": replace([("nope", "x")]), "nothing": replace([]),
        "key twice": replace([("retention.ms", "5"), ("retention.ms", "6")]),
        "unknown topic": replace([], resource=f"{prefix}.missing"), "type 99": replace([], kind=99),
    }.items():
        yield f"AlterConfigs {label}", "AlterConfigs", None, fields


def cluster(prefix):
    def named(*names, auto=False):
        return {"topics": None if names == (None,) else [{"name": n} for n in names],
                "allow_auto_topic_creation": auto}

    for label, names in {"unknown": (f"{prefix}.missing",), "bad name": ("a/b",), "empty name": ("",), "none": (),
                         "two": (f"{prefix}.one", f"{prefix}.two"), "same twice": (f"{prefix}.one",) * 2}.items():
        # Before version 4 a request creates what it asks for, and before 1 no topics means all topics.
        yield f"Metadata {label}", "Metadata", list(range(4, 14)), named(*names)
    yield "Metadata makes a bad one", "Metadata", 13, named("a/b", auto=True)
    yield "Metadata makes a colliding one", "Metadata", 13, named(f"{prefix}_one", auto=True)
    yield "Metadata makes a long one", "Metadata", 13, named("x" * 250, auto=True)
    for version in (12, 13):
        yield "Metadata unknown id", "Metadata", version, {
            "topics": [{"topic_id": "12345678-1234-1234-1234-123456789abc", "name": None}],
            "allow_auto_topic_creation": False}
        yield "Metadata no id", "Metadata", version, {
            "topics": [{"topic_id": NO_UUID, "name": None}], "allow_auto_topic_creation": False}
        yield "Metadata by id", "Metadata", version, lambda side: {
            "topics": [{"topic_id": side.kept["ids"][f"{prefix}.one"], "name": None}],
            "allow_auto_topic_creation": False}
    yield "Metadata operations", "Metadata", 10, {
        **named(f"{prefix}.one"), "include_topic_authorized_operations": True,
        "include_cluster_authorized_operations": True}
    for endpoint_type in (1, 2, 3):
        yield f"DescribeCluster of type {endpoint_type}", "DescribeCluster", None, {"endpoint_type": endpoint_type}
    yield "DescribeCluster operations", "DescribeCluster", 1, {"include_cluster_authorized_operations": True}

    def describe(*names, limit=2000, cursor=None):
        return {"topics": [{"name": n} for n in names], "response_partition_limit": limit, "cursor": cursor}

    for label, fields in {
        "two": describe(f"{prefix}.two", f"{prefix}.one"), "unknown": describe(f"{prefix}.missing"),
        "bad name": describe("a/b"), "same twice": describe(f"{prefix}.one", f"{prefix}.one"),
        "limit 1": describe(f"{prefix}.two", f"{prefix}.one", limit=1),
        "limit 0": describe(f"{prefix}.two", limit=0), "limit negative": describe(f"{prefix}.two", limit=-5),
        "cursor": describe(f"{prefix}.two", cursor={"topic_name": f"{prefix}.two", "partition_index": 1}),
        "cursor past": describe(f"{prefix}.two", cursor={"topic_name": f"{prefix}.two", "partition_index": 9}),
        "cursor on none": describe(f"{prefix}.two", cursor={"topic_name": "aaa", "partition_index": 0}),
        "cursor negative": describe(f"{prefix}.two", cursor={"topic_name": f"{prefix}.two", "partition_index": -1}),
    }.items():
        yield f"DescribeTopicPartitions {label}", "DescribeTopicPartitions", None, fields
    for label, software in {"good": ("a", "1"), "bad name": ("a b", "1"), "bad version": ("a", "-"),
                            "empty": ("", "")}.items():
        yield f"ApiVersions {label}", "ApiVersions", 3, {
            "client_software_name": software[0], "client_software_version": software[1]}


def all_cases(prefix):
    for group in (create_topics, configs, cluster, partitions_and_deletion):
        yield from group(prefix)
