"""Kafka's own command line tools, each run as its own process, as its users run it."""

import subprocess

import pytest

from harness import BASE_MS, CACHE, DEADLINE_S, unique
from reading import make_topic, read_all
from test_confluent import produce
from wire import stored_batches

TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
}


def java(main, keep_classes=False):
    """A command that runs a class of ours or of Kafka's. The tools live for a second: the quick compiler alone, and an
    archive of loaded classes, which the first run with `keep_classes` leaves for all others."""
    archive = CACHE / "tools.jsa"
    share = [f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []
    if keep_classes and not share:
        share = [f"-XX:ArchiveClassesAtExit={archive}"]
    return ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", *share,
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{CACHE}/driver.jar:{CACHE}/jars/*", main]


def tool(broker, name, *args, stdin="", ok=True):
    command = [*java(TOOLS[name]), "--bootstrap-server", broker.bootstrap, *map(str, args)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE_S)
    if ok:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout if ok else done.stdout + done.stderr


def test_topics(broker):
    topic = unique("tool-topics")
    tool(broker, "topics", "--create", "--topic", topic, "--partitions", 3, "--config", "retention.ms=1000000")
    assert "already exists" in tool(broker, "topics", "--create", "--topic", topic, ok=False)
    tool(broker, "topics", "--alter", "--topic", topic, "--partitions", 4)
    described = tool(broker, "topics", "--describe", "--topic", topic)
    assert "PartitionCount: 4" in described and "retention.ms=1000000" in described
    assert described.count("Leader: 1") == 4 or described.count("Leader: 0") == 4
    tool(broker, "topics", "--delete", "--topic", topic)
    assert topic not in tool(broker, "topics", "--list").split()


def test_configs(broker):
    topic = unique("tool-configs")
    make_topic(broker.bootstrap, topic)
    entity = ("--entity-type", "topics", "--entity-name", topic)
    tool(broker, "configs", "--alter", *entity, "--add-config", "retention.ms=1000000,cleanup.policy=[compact,delete]")
    described = tool(broker, "configs", "--describe", *entity)
    assert "retention.ms=1000000" in described and "cleanup.policy=compact,delete" in described
    assert "nvalid value soon" in tool(
        broker, "configs", "--alter", *entity, "--add-config", "retention.ms=soon", ok=False)
    tool(broker, "configs", "--alter", *entity, "--delete-config", "retention.ms")
    everything = tool(broker, "configs", "--describe", "--all", *entity)
    assert "retention.ms=604800000" in everything and "segment.bytes=1073741824" in everything


def test_offsets_and_delete_records(broker, tmp_path):
    topic = unique("tool-offsets")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "o") == []

    def listed(time):
        lines = tool(broker, "get-offsets", "--topic", topic, "--time", time).split()
        return [int(line.rsplit(":", 1)[1]) for line in sorted(lines)]

    assert listed("latest") == [150, 150]
    assert listed(BASE_MS + 100_500) == [51, 50]
    assert listed("max-timestamp") == [149, 149]
    wanted = tmp_path / "offsets.json"
    wanted.write_text('{"version": 1, "partitions": [{"topic": "%s", "partition": 1, "offset": 40}]}' % topic)
    assert "low_watermark: 40" in tool(broker, "delete-records", "--offset-json-file", wanted)
    assert listed("earliest") == [0, 40]


@pytest.mark.parametrize("codec", ("none", "gzip", "snappy", "lz4", "zstd"))
def test_console_producer(broker, codec):
    topic = unique(f"tool-{codec}")
    make_topic(broker.bootstrap, topic, 1)
    lines = "".join(f"k{i % 7}|value {i}\n" for i in range(500))
    tool(broker, "console-producer", "--topic", topic, "--compression-codec", codec, "--reader-property",
         "parse.key=true", "--reader-property", "key.separator=|", stdin=lines)
    got = read_all(broker.bootstrap, topic)
    assert [(r.key.decode() + "|" + r.value.decode()) for r in got] == lines.split("\n")[:-1]
    batches = stored_batches(broker.bootstrap, topic, 0)
    assert {b.codec for b in batches} == {codec} and all(b.producer_id >= 0 for b in batches)


def test_console_consumer(broker):
    topic = unique("tool-consumer")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "c") == []
    out = tool(broker, "console-consumer", "--topic", topic, "--partition", 1, "--offset", 140, "--max-messages", 5,
               "--formatter-property", "print.offset=true", "--formatter-property", "print.timestamp=true",
               "--formatter-property", "print.value=false")
    assert out.split("\n")[:-1] == [f"CreateTime:{BASE_MS + (2 * i + 1) * 1000}\tOffset:{i}" for i in range(140, 145)]


def test_producer_perf_test(broker):
    topic = unique("tool-perf")
    make_topic(broker.bootstrap, topic, 4)
    out = tool(broker, "producer-perf-test", "--topic", topic, "--num-records", 20_000, "--record-size", 200,
               "--throughput", -1, "--command-property", "acks=all")
    assert "20000 records sent" in out
    ends = tool(broker, "get-offsets", "--topic", topic).split()
    assert sum(int(line.rsplit(":", 1)[1]) for line in ends) == 20_000


def test_api_versions(broker):
    out = tool(broker, "broker-api-versions")
    assert "Produce(0): 0 to" in out and "UNSUPPORTED" in out
