"""Requests that read what an administrator looks at, of a broker on which little of it exists."""

from batches import NOW, batch, record
from harness import eventually

QUORUM = "__cluster_metadata"
STATES = ["Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead",
          "PrepareEpochFence"]


def entities(*components, strict=False):
    return {"components": [
        {"entity_type": kind, "match_type": match, "match": name} for kind, match, name in components],
        "strict": strict}


def keep_topic(prefix):
    """A topic with two producers' records, whose sizes both brokers tell."""
    def keep(side):
        name = f"{prefix}.surface"
        topic = {"name": name, "num_partitions": 2, "replication_factor": 1, "assignments": [], "configs": []}
        made = side.call("CreateTopics", 7, topics=[topic], timeout_ms=30_000)
        assert made["topics"][0]["error_code"] == 0, made
        records = [
            batch([record(0), record(1)], NOW, producer_id=70_001, producer_epoch=0, sequence=0),
            batch(now_ms=NOW + 5, producer_id=70_001, producer_epoch=0, sequence=2),
            batch(now_ms=NOW + 7, producer_id=70_002, producer_epoch=3, sequence=0),
            batch(now_ms=NOW),
        ]
        for one in records:
            def sent():
                answer = side.call("Produce", 9, acks=-1, timeout_ms=5000, topic_data=[
                    {"name": name, "partition_data": [{"index": 0, "records": one}]}])
                return answer["responses"][0]["partition_responses"][0]["error_code"] == 0
            eventually(sent, "a new topic takes records")
        described = side.call("DescribeLogDirs", 4, topics=[])
        side.kept["log_dir"] = described["results"][0]["log_dir"]
    return keep


def logs(prefix):
    name, missing = f"{prefix}.surface", f"{prefix}.missing"

    def dirs(*topics):
        return {"topics": [{"topic": t, "partitions": list(p)} for t, p in topics]}

    for label, fields in {
        "one": dirs((name, [0])), "both": dirs((name, [0, 1])), "none": {"topics": []},
        "no such partition": dirs((name, [1, 7])), "negative partition": dirs((name, [-1])),
        "no partitions": dirs((name, [])), "unknown topic": dirs((missing, [0])), "bad topic": dirs(("a/b", [0])),
        "partition twice": dirs((name, [0, 0])), "empty name": dirs(("", [0])),
    }.items():
        yield f"DescribeLogDirs {label}", "DescribeLogDirs", None, fields

    def producers(*topics):
        return {"topics": [{"name": t, "partition_indexes": list(p)} for t, p in topics]}

    for label, fields in {
        "both": producers((name, [0, 1])), "no such partition": producers((name, [7])), "none": producers(),
        "negative partition": producers((name, [-1])), "no partitions": producers((name, [])),
        "unknown topic": producers((missing, [0])), "bad topic": producers(("a/b", [0])),
        "partition twice": producers((name, [1, 1])), "empty name": producers(("", [0])),
    }.items():
        yield f"DescribeProducers {label}", "DescribeProducers", None, fields

    def move(path, *topics):
        return lambda side: {"dirs": [{"path": path or side.kept["log_dir"], "topics": [
            {"name": t, "partitions": list(p)} for t, p in topics]}]}

    for label, fields in {
        "where it is": move(None, (name, [0])), "elsewhere": move("/nowhere/at/all", (name, [1])),
        "relative": move("here", (name, [0])), "empty path": move(" ", (name, [0])),
        "no such partition": move(None, (name, [7])), "unknown topic": move(None, (missing, [0])),
        "unknown topic elsewhere": move("/nowhere/at/all", (missing, [0])), "none": lambda _: {"dirs": []},
        "no partitions": move(None, (name, [])),
        "bad topic": move(None, ("a/b", [0])), "empty name": move(None, ("", [0])),
    }.items():
        yield f"AlterReplicaLogDirs {label}", "AlterReplicaLogDirs", None, fields


def resources(prefix):
    for label, types in {"client metrics": [16], "groups": [32], "brokers": [4], "unknown type": [99],
                         "known and unknown": [4, 99], "twice": [4, 4], "type 0": [0], "metrics and groups": [16, 32],
                         "type 1": [1], "loggers": [8]}.items():
        yield f"ListConfigResources {label}", "ListConfigResources", 1, {"resource_types": types}
    yield "ListConfigResources of old", "ListConfigResources", 0, {}
    for label, kind, name in (("client metrics", 16, "nothing"), ("client metrics of no name", 16, ""),
                              ("a group", 32, "nobody"), ("a group of no name", 32, "")):
        yield f"DescribeConfigs of {label}", "DescribeConfigs", 4, {"resources": [
            {"resource_type": kind, "resource_name": name, "configuration_keys": None}], "include_synonyms": True}


def security(_prefix):
    for label, fields in {
        "all": entities(), "all strictly": entities(strict=True), "user": entities(("user", 0, "u")),
        "default user": entities(("user", 1, None)), "any user": entities(("user", 2, None)),
        "any user strictly": entities(("user", 2, None), strict=True),
        "user and client": entities(("user", 0, "u"), ("client-id", 0, "c")),
        "address": entities(("ip", 0, "1.2.3.4")), "bad address": entities(("ip", 0, "x")),
        "address and user": entities(("ip", 2, None), ("user", 2, None)),
        "unknown type": entities(("planet", 0, "x")), "empty type": entities(("", 0, "x")),
        "type twice": entities(("user", 0, "a"), ("user", 0, "b")), "unknown match": entities(("user", 7, "a")),
        "exactly nothing": entities(("user", 0, None)), "default with a name": entities(("user", 1, "a")),
        "any with a name": entities(("user", 2, "a")), "empty name": entities(("user", 0, "")),
    }.items():
        yield f"DescribeClientQuotas {label}", "DescribeClientQuotas", None, fields
    for label, users in {"all": None, "none": [], "one": ["u"], "two": ["u", "v"], "one twice": ["u", "u"],
                         "one thrice": ["u", "w", "u", "u"], "no name": [""]}.items():
        yield f"DescribeUserScramCredentials {label}", "DescribeUserScramCredentials", None, {
            "users": users if users is None else [{"name": u} for u in users]}

    def acls(kind=1, name=None, pattern=1, principal=None, host=None, operation=1, permission=1):
        return {"resource_type_filter": kind, "resource_name_filter": name, "pattern_type_filter": pattern,
                "principal_filter": principal, "host_filter": host, "operation": operation,
                "permission_type": permission}

    for label, fields in {
        "all": acls(), "of a topic": acls(2, "t", 3), "unknown type": acls(99), "unknown pattern": acls(pattern=99),
        "unknown operation": acls(operation=99), "unknown permission": acls(permission=99),
        "type 0": acls(0), "bad principal": acls(principal="x"),
    }.items():
        yield f"DescribeAcls {label}", "DescribeAcls", None, fields


def replicas(prefix):
    name, missing = f"{prefix}.surface", f"{prefix}.missing"

    def elect(*topics, kind=0):
        return {"election_type": kind, "timeout_ms": 5000,
                "topic_partitions": [{"topic": t, "partitions": list(p)} for t, p in topics]}

    for label, fields in {
        "one": elect((name, [0])), "both": elect((name, [1, 0])), "no such partition": elect((name, [7])),
        "unknown topic": elect((missing, [0])), "none": elect(), "no partitions": elect((name, [])),
        "negative partition": elect((name, [-1])), "partition twice": elect((name, [0, 0])),
        "bad topic": elect(("a/b", [0])), "topic twice": elect((name, [0]), (name, [1])),
    }.items():
        yield f"ElectLeaders {label}", "ElectLeaders", None, fields
    for label, fields in {
        "uncleanly": elect((name, [0]), kind=1), "uncleanly, unknown": elect((missing, [0]), kind=1),
        "by an unknown kind": elect((name, [0]), kind=9), "everywhere, by an unknown kind": {
            "election_type": 9, "topic_partitions": None, "timeout_ms": 5000},
    }.items():
        yield f"ElectLeaders {label}", "ElectLeaders", [1, 2], fields

    def moving(*topics):
        return {"timeout_ms": 5000, "topics": [{"name": t, "partition_indexes": list(p)} for t, p in topics]}

    for label, fields in {
        "all": {"timeout_ms": 5000, "topics": None}, "one": moving((name, [0])), "none": moving(),
        "unknown topic": moving((missing, [0])), "no such partition": moving((name, [7])),
        "bad topic": moving(("a/b", [0])),
    }.items():
        yield f"ListPartitionReassignments {label}", "ListPartitionReassignments", None, fields


def transactions(prefix):
    for label, fields in {
        "all": {}, "in a state": {"state_filters": ["Ongoing"]}, "in unknown states": {"state_filters": [
            "Ongoing", "Tired", "ongoing", "", "Tired"]}, "in every state": {"state_filters": STATES}, "of a producer": {"producer_id_filters": [7]},
    }.items():
        yield f"ListTransactions {label}", "ListTransactions", None, {
            "state_filters": [], "producer_id_filters": [], **fields}
    for label, fields in {"long": {"duration_filter": 5}, "negative": {"duration_filter": -7}}.items():
        yield f"ListTransactions {label}", "ListTransactions", [1, 2], {
            "state_filters": [], "producer_id_filters": [], **fields}
    for label, pattern in {"pattern": "a.*", "bad pattern": "(", "empty pattern": ""}.items():
        yield f"ListTransactions {label}", "ListTransactions", 2, {
            "state_filters": [], "producer_id_filters": [], "transactional_id_pattern": pattern}
    for label, ids in {"one": ["t"], "two": ["t", "u"], "twice": ["t", "t"], "no name": [""], "none": []}.items():
        yield f"DescribeTransactions {label}", "DescribeTransactions", None, {"transactional_ids": ids}


def quorum(prefix):
    def ask(*topics):
        return {"topics": [
            {"topic_name": t, "partitions": [{"partition_index": i} for i in p]} for t, p in topics]}

    for label, fields in {
        "the log": ask((QUORUM, [0])), "partition 1": ask((QUORUM, [1])), "a topic": ask((f"{prefix}.surface", [0])),
        "none": ask(), "two partitions": ask((QUORUM, [0, 1])), "the log twice": ask((QUORUM, [0]), (QUORUM, [0])),
        "no partitions": ask((QUORUM, [])),
    }.items():
        yield f"DescribeQuorum {label}", "DescribeQuorum", None, fields


def all_cases(prefix):
    yield "keep a topic", None, None, keep_topic(prefix)
    for group in (logs, resources, security, replicas, transactions, quorum):
        yield from group(prefix)
