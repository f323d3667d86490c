"""Kafka's own tools for groups, each run as its own process."""

import json
import re

from harness import DEADLINE_S, unique
from members import Librdkafka, committed, settled
from reading import make_topic
from test_confluent import produce
from test_java_tools import TOOLS, tool

TOOLS.update({
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
    "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "end-to-end": "org.apache.kafka.tools.EndToEndLatency",
})
PARTITIONS = 2
OFFSETS = [150, 150]


def filled(broker, stem):
    topic = unique(stem)
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "g") == []
    return topic


def read_by_group(broker, topic, group):
    read = tool(broker, "console-consumer", "--topic", topic, "--group", group, "--from-beginning",
                "--max-messages", sum(OFFSETS), "--timeout-ms", DEADLINE_S * 1000)
    assert len(read.splitlines()) == sum(OFFSETS)
    assert committed(broker.bootstrap, group, topic, PARTITIONS) == OFFSETS


def test_console_consumer_and_describe(broker):
    topic, group = filled(broker, "tool-group"), unique("tool")
    read_by_group(broker, topic, group)
    assert group in tool(broker, "consumer-groups", "--list").split()
    rows = [line.split() for line in tool(broker, "consumer-groups", "--describe", "--group", group).splitlines()]
    rows = {int(row[2]): row[3:6] for row in rows if row[:2] == [group, topic]}
    assert rows == {0: ["150", "150", "0"], 1: ["150", "150", "0"]}


def test_describe_members_and_state(broker):
    topic, group = filled(broker, "tool-members"), unique("tool")
    member = Librdkafka(broker, group, topic, **{"client.id": "the-member"})
    try:
        settled(broker, group, 1, PARTITIONS)
        described = tool(broker, "consumer-groups", "--describe", "--group", group, "--members", "--verbose")
        assert "the-member" in described and f"{topic}(0,1)" in described.replace(f"{topic}:0,1", f"{topic}(0,1)")
        state = tool(broker, "consumer-groups", "--describe", "--group", group, "--state")
        assert re.search(rf"{group} .*range +Stable +1", state), state
        refused = tool(broker, "consumer-groups", "--delete", "--group", group, ok=False)
        assert "GroupNotEmptyException" in refused
    finally:
        member.leave()


def test_reset_offsets_and_delete(broker):
    topic, group = filled(broker, "tool-reset"), unique("tool")
    read_by_group(broker, topic, group)

    def reset(*how):
        tool(broker, "consumer-groups", "--reset-offsets", "--group", group, "--topic", topic, "--execute", *how)
        return committed(broker.bootstrap, group, topic, PARTITIONS)

    assert reset("--to-earliest") == [0, 0]
    assert reset("--to-offset", 70) == [70, 70]
    assert reset("--shift-by", -20) == [50, 50]
    assert reset("--to-latest") == OFFSETS
    tool(broker, "consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    assert committed(broker.bootstrap, group, topic, PARTITIONS) == [-1001, 150], "-1001 says that there is none"
    tool(broker, "consumer-groups", "--delete", "--group", group)
    assert group not in tool(broker, "consumer-groups", "--list").split()
    assert committed(broker.bootstrap, group, topic, PARTITIONS) == [-1001, -1001]


def test_consumer_perf_test(broker):
    topic = filled(broker, "tool-perf")
    said = tool(broker, "consumer-perf-test", "--topic", topic, "--num-records", sum(OFFSETS), "--group", unique("perf"))
    names, numbers = (line.split(", ") for line in said.splitlines()[:2])
    assert int(dict(zip(names, numbers))["data.consumed.in.nMsg"]) == sum(OFFSETS), said


def test_verifiable_producer_and_consumer(broker):
    topic, group, count = unique("tool-verifiable"), unique("verifiable"), 500
    make_topic(broker.bootstrap, topic)
    told = [json.loads(line) for line in tool(
        broker, "verifiable-producer", "--topic", topic, "--max-messages", count).splitlines()]
    assert sum(event["name"] == "producer_send_success" for event in told) == count
    told = [json.loads(line) for line in tool(
        broker, "verifiable-consumer", "--topic", topic, "--group-id", group, "--max-messages", count,
        "--reset-policy", "earliest").splitlines()]
    assert sum(event["count"] for event in told if event["name"] == "records_consumed") >= count
    commits = [event for event in told if event["name"] == "offsets_committed"]
    assert commits and all(event["success"] for event in commits)


def test_end_to_end_latency(broker):
    topic = unique("tool-latency")
    make_topic(broker.bootstrap, topic, partitions=1)
    said = tool(broker, "end-to-end", "--topic", topic, "--num-records", 50, "--producer-acks", "all",
                "--record-size", 100)
    assert "Percentiles" in said, said
