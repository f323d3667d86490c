"""Compacted topics: librdkafka, kafka-python and Kafka's own console consumer read the latest value of each key."""

import random
import urllib.request

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, AlterConfigOpType

from harness import DEADLINE_S, Broker, eventually, start_penstock, unique
from reading import make_topic, read_all
from test_java_tools import tool

# Segments are no smaller: a topic has to outgrow some of them before anything is cleaned.
SEGMENT_BYTES = 1 << 20
KEYS, ROUNDS, VALUE_BYTES = 60, 60, 1200
CLEANER = ("log.cleaner.backoff.ms=50", "offsets.topic.num.partitions=1",
           f"offsets.topic.segment.bytes={SEGMENT_BYTES}")


@pytest.fixture(scope="module", params=(1, 2))
def cleaned(request, binary, tmp_path_factory):
    """A broker that looks for logs to clean all the time, and a way to start it anew."""
    data, running = tmp_path_factory.mktemp("compaction") / "data", []

    def start():
        while running:
            process, _ = running.pop()
            assert process.stop() == 0, process.tail()
            process.remove()
        process, address, admin = start_penstock(binary, request.param, settings=CLEANER, data=data)
        running.append((process, admin))
        return Broker(address, is_kafka=False, no_auto=None), admin

    yield start
    while running:
        process, _ = running.pop()
        assert process.stop() == 0, process.tail()
        process.remove()


def metric(admin, name):
    page = urllib.request.urlopen(f"http://{admin}/metrics", timeout=DEADLINE_S).read().decode()
    lines = [line for line in page.splitlines() if line.split("{")[0].endswith(name) and not line.startswith("#")]
    assert lines, name
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def fill(bootstrap, topic, codec, tombstones=False):
    """Writes rounds of all keys to partition 0, in many batches; gives the map that is left."""
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "linger.ms": 0,
                         "enable.idempotence": True})
    latest = {}
    for number in range(ROUNDS):
        for key in range(KEYS):
            name = f"key-{key}".encode()
            # A few keys are written once, and must stay for ever.
            if key < 3 and number > 0:
                continue
            # Not to be compressed away: segments have to fill.
            value = random.randbytes(VALUE_BYTES)
            if tombstones and number == ROUNDS // 2 and 10 <= key < 20:
                value = None
            elif tombstones and number > ROUNDS // 2 and 10 <= key < 20:
                continue
            producer.produce(topic, value, name, partition=0)
            latest[name] = value
        assert producer.flush(DEADLINE_S) == 0
    # What is active is never cleaned: let it be others' records.
    for _ in range(2 * SEGMENT_BYTES // VALUE_BYTES):
        producer.produce(topic, random.randbytes(VALUE_BYTES), b"filler", partition=0)
    assert producer.flush(DEADLINE_S) == 0
    return latest


def as_map(records):
    latest = {record.key: record.value for record in records}
    latest.pop(b"filler", None)
    return latest


def wait_cleaned(bootstrap, topic, most):
    """Reads until so few records are left."""
    def few():
        records = read_all(bootstrap, topic)
        assert [r.offset for r in records] == sorted({r.offset for r in records})
        return records if len([r for r in records if r.key != b"filler"]) <= most else None
    return eventually(few, f"{topic} is cleaned")


@pytest.mark.parametrize("codec", ("none", "gzip", "lz4", "zstd"))
def test_latest_value_of_each_key(cleaned, codec):
    broker, admin = cleaned()
    topic = unique(f"compact-{codec}")
    make_topic(broker.bootstrap, topic, 1, cleanup_policy="compact", segment_bytes=SEGMENT_BYTES,
               min_cleanable_dirty_ratio="0.01", retention_ms="1")
    expected = fill(broker.bootstrap, topic, codec)
    records = wait_cleaned(broker.bootstrap, topic, KEYS + KEYS // 2)
    assert as_map(records) == expected
    # Metrics tell of a round within a second or so.
    eventually(lambda: metric(admin, "cleaner_rounds_total") > 0, "a round is counted")
    assert metric(admin, "cleaner_dropped_records_total") > 0
    assert metric(admin, "cleaner_uncleanable_logs") == 0
    # The same after a restart, and for other clients.
    broker, _ = cleaned()
    assert as_map(read_all(broker.bootstrap, topic)) == expected
    kafka_python_reads(broker, topic, expected)
    java_reads(broker, topic, expected)


def kafka_python_reads(broker, topic, expected):
    from kafka import KafkaConsumer, TopicPartition as Partition
    reader = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        place = Partition(topic, 0)
        reader.assign([place])
        end, found = reader.end_offsets([place])[place], {}

        def at_end():
            for message in (m for batch in reader.poll(timeout_ms=200).values() for m in batch):
                found[message.key] = message.value
            return reader.position(place) >= end

        eventually(at_end, "kafka-python reads to the end")
        found.pop(b"filler", None)
        assert found == expected
    finally:
        reader.close()


def java_reads(broker, topic, expected):
    # How many records there are may change still: it reads until no more come for a while, and on a busy machine none
    # may have come at all by then.
    def keys():
        out = tool(broker, "console-consumer", "--topic", topic, "--partition", 0, "--offset", "earliest",
                   "--timeout-ms", 10_000,
                   "--formatter-property", "print.key=true", "--formatter-property", "print.value=false",
                   "--formatter-property", "print.offset=true")
        found = {line.split("\t")[1].encode() for line in out.splitlines() if line.startswith("Offset:")}
        return found - {b"filler"} == set(expected)
    eventually(keys, "Kafka's consumer reads all keys")


def test_tombstones_go(cleaned):
    broker, _ = cleaned()
    topic = unique("compact-tombstones")
    make_topic(broker.bootstrap, topic, 1, cleanup_policy="compact", segment_bytes=SEGMENT_BYTES,
               min_cleanable_dirty_ratio="0.01", delete_retention_ms="500")
    expected = fill(broker.bootstrap, topic, "none", tombstones=True)
    assert any(value is None for value in expected.values())
    left = {key: value for key, value in expected.items() if value is not None}
    # They are kept at first, and go by themselves when their time is over.
    eventually(lambda: as_map(read_all(broker.bootstrap, topic)) == left, "tombstones go")


def test_keys_are_demanded(cleaned):
    broker, _ = cleaned()
    topic = unique("compact-keys")
    make_topic(broker.bootstrap, topic, 1, cleanup_policy="compact")
    errors = []
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    producer.produce(topic, b"no key", partition=0, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(DEADLINE_S) == 0
    assert [error.code() for error in errors] == [KafkaError.INVALID_RECORD]


def test_policy_changes_at_run_time(cleaned):
    broker, _ = cleaned()
    topic = unique("compact-later")
    make_topic(broker.bootstrap, topic, 1, segment_bytes=SEGMENT_BYTES, min_cleanable_dirty_ratio="0.01")
    expected = fill(broker.bootstrap, topic, "none")
    assert len(read_all(broker.bootstrap, topic)) > KEYS * ROUNDS // 2
    client = AdminClient({"bootstrap.servers": broker.bootstrap})
    entry = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(DEADLINE_S)
    assert as_map(wait_cleaned(broker.bootstrap, topic, KEYS + KEYS // 2)) == expected


def test_committed_offsets_outlive_their_cleaning(cleaned):
    broker, admin = cleaned()
    topic, groups = unique("committed"), [unique("group") for _ in range(3)]
    make_topic(broker.bootstrap, topic, 1)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for number in range(400):
        producer.produce(topic, b"%d" % number, partition=0)
    assert producer.flush(DEADLINE_S) == 0

    def reader(group):
        return Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "enable.auto.commit": False})

    before = metric(admin, "cleaner_dropped_records_total")
    for place, group in enumerate(groups):
        member = reader(group)
        # The client commits only once it knows the coordinator, which this waits for.
        member.committed([TopicPartition(topic, 0)], timeout=DEADLINE_S)
        for offset in range(1, 301 + place):
            # As long as may be, so that segments fill.
            member.commit(offsets=[TopicPartition(topic, 0, offset, "m" * 4000)], asynchronous=False)
        member.close()
    eventually(lambda: metric(admin, "cleaner_dropped_records_total") > before + 300, "offsets are cleaned")
    broker, _ = cleaned()
    for place, group in enumerate(groups):
        member = reader(group)
        found = member.committed([TopicPartition(topic, 0)], timeout=DEADLINE_S)
        assert [(f.error, f.offset) for f in found] == [(None, 300 + place)]
        member.close()
