"""Kafka's own tools for administrators, each run as its own process: reads of logs, producers, replicas and the quorum,
and of what does not exist on a new cluster."""

import json

from harness import unique
from reading import make_topic
from test_confluent import produce
from test_java_tools import TOOLS, tool

TOOLS.update({
    "acls": "org.apache.kafka.tools.AclCommand",
    "client-metrics": "org.apache.kafka.tools.ClientMetricsCommand",
    "delegation-tokens": "org.apache.kafka.tools.DelegationTokenCommand",
    "features": "org.apache.kafka.tools.FeatureCommand",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
})
PARTITIONS = 2


def filled(broker, stem):
    topic = unique(stem)
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "a", **{"enable.idempotence": True}) == []
    return topic


def test_log_dirs(broker):
    topic = filled(broker, "tool-log-dirs")
    out = tool(broker, "log-dirs", "--describe", "--topic-list", topic)
    (node,) = json.loads(out.splitlines()[-1])["brokers"]
    (directory,) = node["logDirs"]
    assert directory["error"] is None and directory["logDir"].startswith("/")
    sizes = {p["partition"]: p for p in directory["partitions"]}
    assert set(sizes) == {f"{topic}-0", f"{topic}-1"}
    # 150 records a partition, most of them with a value of up to 2 kB.
    assert all(p["size"] > 10_000 and p["offsetLag"] == 0 and not p["isFuture"] for p in sizes.values())
    everything = tool(broker, "log-dirs", "--describe")
    assert f'"{topic}-1"' in everything


def test_describe_producers(broker):
    topic = filled(broker, "tool-producers")
    rows = tool(broker, "transactions", "describe-producers", "--topic", topic, "--partition", 0).splitlines()
    assert rows[0].split()[:4] == ["ProducerId", "ProducerEpoch", "LatestCoordinatorEpoch", "LastSequence"]
    (row,) = (line.split() for line in rows[1:])
    # One producer, of 150 records, none of them in a transaction.
    assert row[1:4] == ["0", "-1", "149"] and row[5] == "None"


def test_list_transactions(broker):
    rows = tool(broker, "transactions", "list").splitlines()
    assert [line.split() for line in rows] == [["TransactionalId", "Coordinator", "ProducerId", "TransactionState"]]
    assert len(tool(broker, "transactions", "list", "--transactional-id-pattern", "a.*").splitlines()) == 1


def test_configs_of_nothing(broker):
    for entity in ("users", "clients", "ips", "client-metrics"):
        assert tool(broker, "configs", "--describe", "--entity-type", entity) == ""
    assert tool(broker, "client-metrics", "--list").strip() == ""
    # Groups of other tests may be there; the broker sets nothing on them.
    described = tool(broker, "configs", "--describe", "--entity-type", "groups")
    assert all(line.startswith("Dynamic configs for group ") for line in described.splitlines())


def test_security_is_off(broker):
    assert "SecurityDisabledException: No Authorizer is configured on the broker" in tool(
        broker, "acls", "--list", ok=False)
    assert "Delegation Token requests are not allowed" in tool(
        broker, "delegation-tokens", "--describe", "--command-config", "/dev/null", ok=False)


def test_replicas_stay(broker):
    topic = filled(broker, "tool-replicas")
    assert "No partition reassignments found" in tool(broker, "reassign-partitions", "--list")
    elected = tool(broker, "leader-election", "--election-type", "preferred", "--topic", topic, "--partition", 1)
    assert f"Valid replica already elected for partitions {topic}-1" in elected
    unclean = tool(broker, "leader-election", "--election-type", "unclean", "--topic", topic, "--partition", 0)
    assert f"Valid replica already elected for partitions {topic}-0" in unclean
    assert tool(broker, "leader-election", "--election-type", "preferred", "--all-topic-partitions").strip() == ""


def test_metadata_quorum(broker):
    out = tool(broker, "metadata-quorum", "describe", "--status")
    status = dict(line.split(":", 1) for line in out.splitlines())
    leader = int(status["LeaderId"])
    (voter,) = json.loads(status["CurrentVoters"])
    assert voter["id"] == leader and len(voter["endpoints"]) == 1
    before = int(status["HighWatermark"])
    make_topic(broker.bootstrap, unique("tool-quorum"))
    rows = tool(broker, "metadata-quorum", "describe", "--replication").splitlines()
    node, _, end, lag, *_, state = rows[1].split()
    assert (int(node), lag, state, len(rows)) == (leader, "0", "Leader", 2)
    assert int(end) > before, "a new topic is written to the metadata log"


def test_features(broker):
    out = tool(broker, "features", "describe")
    if broker.is_kafka is False:
        assert "Feature:" not in out
