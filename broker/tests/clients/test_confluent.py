"""confluent-kafka (librdkafka, newest)."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
)

from harness import BASE_MS, COUNT, DEADLINE_S, assert_same, eventually, stream, unique
from reading import as_rec, consumer, make_topic, read_all
from wire import packed_codecs, stored_batches

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def admin_of(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def error_of(future):
    with pytest.raises(KafkaException) as caught:
        future.result(DEADLINE_S)
    return caught.value.args[0].code()


def produce(broker, topic, tag, **settings):
    """Sends a stream; returns the error of each delivery that failed. One request in flight: a retry keeps the order."""
    failed = []
    producer = Producer({
        "bootstrap.servers": broker.bootstrap, "linger.ms": 60_000, "max.in.flight.requests.per.connection": 1,
        **settings,
    })
    for rec in stream(tag):
        producer.produce(
            topic, rec.value, rec.key, rec.partition, timestamp=rec.timestamp, headers=list(rec.headers),
            on_delivery=lambda error, _message: failed.append(error) if error else None)
    assert producer.flush(DEADLINE_S) == 0
    return failed


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker, codec):
    topic = unique(f"confluent-{codec}")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, codec, **{"compression.type": codec}) == []
    assert_same(read_all(broker.bootstrap, topic), stream(codec))
    assert packed_codecs(broker.bootstrap, topic) == {codec}


@pytest.mark.parametrize("codec", CODECS)
def test_recompression_by_the_broker(broker, codec):
    topic = unique(f"confluent-to-{codec}")
    make_topic(broker.bootstrap, topic, compression_type="uncompressed" if codec == "none" else codec)
    other = "gzip" if codec != "gzip" else "zstd"
    assert produce(broker, topic, codec, **{"compression.type": other}) == []
    assert_same(read_all(broker.bootstrap, topic), stream(codec))
    assert {b.codec for p in (0, 1) for b in stored_batches(broker.bootstrap, topic, p)} == {codec}


def test_idempotent(broker):
    topic = unique("confluent-idempotent")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "i", **{
        "enable.idempotence": True, "batch.num.messages": 10, "max.in.flight.requests.per.connection": 5}) == []
    assert_same(read_all(broker.bootstrap, topic), stream("i"))
    for partition in (0, 1):
        batches = stored_batches(broker.bootstrap, topic, partition)
        assert len({b.producer_id for b in batches}) == 1 and batches[0].producer_id >= 0
        assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


@pytest.mark.parametrize("acks", ("0", "1", "all"))
def test_acks(broker, acks):
    topic = unique(f"confluent-acks-{acks}")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "a", acks=acks) == []
    eventually(lambda: len(read_all(broker.bootstrap, topic)) == COUNT, "all records arrive")
    assert_same(read_all(broker.bootstrap, topic), stream("a"))


def test_log_append_time(broker):
    topic = unique("confluent-append-time")
    make_topic(broker.bootstrap, topic, message_timestamp_type="LogAppendTime")
    assert produce(broker, topic, "t") == []
    got = read_all(broker.bootstrap, topic)
    assert all(rec.timestamp > BASE_MS + 3_000_000 for rec in got), "the broker's time, not the producer's"
    assert_same([rec._replace(timestamp=0) for rec in got], [rec._replace(timestamp=0) for rec in stream("t")])
    assert all(b.log_append_time for b in stored_batches(broker.bootstrap, topic, 0))


def test_seek_by_time_and_offset(broker):
    topic = unique("confluent-seek")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "s", **{"batch.num.messages": 7}) == []
    reader = consumer(broker.bootstrap)
    try:
        times = {0: BASE_MS, 1: BASE_MS + 101_500}
        found = reader.offsets_for_times([TopicPartition(topic, p, t) for p, t in times.items()], DEADLINE_S)
        assert {f.partition: f.offset for f in found} == {0: 0, 1: 51}
        late, = reader.offsets_for_times([TopicPartition(topic, 0, BASE_MS + COUNT * 1000)], DEADLINE_S)
        assert late.offset == -1, "the end: no record is as young"
        reader.assign([TopicPartition(topic, 1, 51)])
        assert next_record(reader) == stream("s")[103]
        reader.seek(TopicPartition(topic, 1, 3))
        assert eventually(lambda: next_record(reader), "a record after the seek").offset == 3
        assert reader.get_watermark_offsets(TopicPartition(topic, 1), DEADLINE_S) == (0, COUNT // 2)
    finally:
        reader.close()


def next_record(reader):
    message = reader.poll(DEADLINE_S)
    assert message is not None and not message.error(), message and message.error()
    return as_rec(message)


def test_reading_before_the_start_and_past_the_end(broker):
    topic = unique("confluent-range")
    make_topic(broker.bootstrap, topic, 1)
    reader = consumer(broker.bootstrap)
    try:
        reader.assign([TopicPartition(topic, 0, 5)])
        message = reader.poll(DEADLINE_S)
        assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
    finally:
        reader.close()


def test_admin_topics(broker):
    admin, topic = admin_of(broker), unique("confluent-admin")
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(DEADLINE_S)
    description = admin.describe_topics(topic_collection([topic]))[topic].result(DEADLINE_S)
    assert [p.id for p in description.partitions] == [0, 1, 2]
    assert description.topic_id is not None and not description.is_internal
    admin.create_partitions([NewPartitions(topic, 5)])[topic].result(DEADLINE_S)
    eventually(lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 5, "five partitions")
    assert error_of(admin.create_partitions([NewPartitions(topic, 5)])[topic]) == KafkaError.INVALID_PARTITIONS
    cluster = admin.describe_cluster().result(DEADLINE_S)
    assert len(cluster.nodes) == 1 and cluster.cluster_id
    admin.delete_topics([topic])[topic].result(DEADLINE_S)
    eventually(lambda: topic not in admin.list_topics(timeout=10).topics, "the topic is gone")


def topic_collection(names):
    from confluent_kafka import TopicCollection
    return TopicCollection(names)


def test_admin_errors(broker):
    admin, topic = admin_of(broker), unique("confluent-errors")
    make_topic(broker.bootstrap, topic)
    def create(name, partitions=1, replicas=1, **config):
        return error_of(admin.create_topics([NewTopic(name, partitions, replicas, config=config)])[name])
    assert create(topic) == KafkaError.TOPIC_ALREADY_EXISTS
    assert create("no/slashes") == KafkaError.TOPIC_EXCEPTION
    assert create("x" * 250) == KafkaError.TOPIC_EXCEPTION
    assert create(unique("t"), replicas=2) == KafkaError.INVALID_REPLICATION_FACTOR
    assert create(unique("t"), **{"retention.ms": "soon"}) == KafkaError.INVALID_CONFIG
    assert create(unique("t"), **{"no.such.key": "1"}) == KafkaError.INVALID_CONFIG
    assert create(unique("t"), **{"cleanup.policy": "shred"}) == KafkaError.INVALID_CONFIG
    missing = unique("missing")
    assert error_of(admin.delete_topics([missing])[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert error_of(admin.create_partitions([NewPartitions(missing, 2)])[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    dry = unique("dry")
    admin.create_topics([NewTopic(dry, 1, 1)], validate_only=True)[dry].result(DEADLINE_S)
    assert dry not in admin.list_topics(timeout=10).topics


def test_admin_configs(broker):
    admin, topic = admin_of(broker), unique("confluent-configs")
    make_topic(broker.bootstrap, topic, retention_ms="86400000", cleanup_policy="delete")

    def described():
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return admin.describe_configs([resource])[resource].result(DEADLINE_S)

    def alter(*entries):
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=list(entries))
        return admin.incremental_alter_configs([resource])[resource]

    def entry(name, op, value=None):
        return ConfigEntry(name, value, incremental_operation=op)

    before = described()
    assert before["retention.ms"].value == "86400000" and not before["retention.ms"].is_default
    assert before["segment.bytes"].value == "1073741824" and before["segment.bytes"].is_default
    alter(entry("retention.ms", AlterConfigOpType.SET, "3600000"),
          entry("cleanup.policy", AlterConfigOpType.APPEND, "compact")).result(DEADLINE_S)
    eventually(lambda: described()["retention.ms"].value == "3600000", "the new value")
    assert set(described()["cleanup.policy"].value.split(",")) == {"delete", "compact"}
    alter(entry("retention.ms", AlterConfigOpType.DELETE),
          entry("cleanup.policy", AlterConfigOpType.SUBTRACT, "compact")).result(DEADLINE_S)
    eventually(lambda: described()["retention.ms"].value == "604800000", "the default again")
    assert described()["cleanup.policy"].value == "delete"
    assert error_of(alter(entry("retention.ms", AlterConfigOpType.SET, "soon"))) == KafkaError.INVALID_CONFIG
    assert error_of(alter(entry("no.such.key", AlterConfigOpType.SET, "1"))) == KafkaError.INVALID_CONFIG
    missing = ConfigResource(ConfigResource.Type.TOPIC, unique("missing"))
    assert error_of(admin.describe_configs([missing])[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_admin_broker_configs(broker):
    admin = admin_of(broker)
    node = next(iter(admin.list_topics(timeout=10).brokers))
    resource = ConfigResource(ConfigResource.Type.BROKER, str(node))
    configs = admin.describe_configs([resource])[resource].result(DEADLINE_S)
    assert configs["message.max.bytes"].value == "1048588"
    assert configs["num.partitions"].is_read_only and configs["num.partitions"].value == "1"


def test_admin_offsets_and_delete_records(broker):
    admin, topic = admin_of(broker), unique("confluent-offsets")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "o") == []
    tp = TopicPartition(topic, 1)

    def listed(spec):
        return admin.list_offsets({tp: spec})[tp].result(DEADLINE_S)

    assert listed(OffsetSpec.earliest()).offset == 0
    assert listed(OffsetSpec.latest()).offset == COUNT // 2
    assert listed(OffsetSpec.for_timestamp(BASE_MS + 100_500)).offset == 50
    newest = listed(OffsetSpec.max_timestamp())
    assert (newest.offset, newest.timestamp) == (COUNT // 2 - 1, BASE_MS + (COUNT - 1) * 1000)
    deleted = admin.delete_records([TopicPartition(topic, 1, 40)])
    assert [f.result(DEADLINE_S).low_watermark for f in deleted.values()] == [40]
    assert listed(OffsetSpec.earliest()).offset == 40
    past = admin.delete_records([TopicPartition(topic, 1, 1000)])
    assert [error_of(f) for f in past.values()] == [KafkaError.OFFSET_OUT_OF_RANGE]
    assert_same(read_all(broker.bootstrap, topic), [r for r in stream("o") if r.partition == 0 or r.offset >= 40])
    everything = admin.delete_records([TopicPartition(topic, 1, -1)])
    assert [f.result(DEADLINE_S).low_watermark for f in everything.values()] == [COUNT // 2]


def test_message_too_large(broker):
    topic = unique("confluent-large")
    make_topic(broker.bootstrap, topic, 1, max_message_bytes="10000")
    codes = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.max.bytes": 10_000_000})
    for size in (9_000, 11_000):
        producer.produce(topic, b"v" * size, on_delivery=lambda e, _m: codes.append(e.code() if e else 0))
        assert producer.flush(DEADLINE_S) == 0
    assert codes == [0, KafkaError.MSG_SIZE_TOO_LARGE]


def test_compacted_topics_need_keys(broker):
    topic = unique("confluent-compacted")
    make_topic(broker.bootstrap, topic, 1, cleanup_policy="compact")
    codes = []
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for key in (b"k", None):
        producer.produce(topic, b"v", key, on_delivery=lambda e, _m: codes.append(e.code() if e else 0))
        assert producer.flush(DEADLINE_S) == 0
    assert codes == [0, KafkaError.INVALID_RECORD]


def test_auto_creation(broker):
    topic = unique("confluent-auto")
    assert produce_one(broker.bootstrap, topic) == 0
    assert [(r.partition, r.value) for r in read_all(broker.bootstrap, topic)] == [(0, b"v")]


def test_auto_creation_off(broker):
    if broker.no_auto is None:
        pytest.skip("needs a broker started with auto.create.topics.enable=false")
    topic = unique("confluent-no-auto")
    assert produce_one(broker.no_auto, topic) in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
    assert topic not in AdminClient({"bootstrap.servers": broker.no_auto}).list_topics(timeout=10).topics


def produce_one(bootstrap, topic):
    codes = []
    producer = Producer({"bootstrap.servers": bootstrap, "topic.metadata.propagation.max.ms": 500})
    producer.produce(topic, b"v", on_delivery=lambda e, _m: codes.append(e.code() if e else 0))
    assert producer.flush(DEADLINE_S) == 0
    return codes[0]
