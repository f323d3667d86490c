"""kafka-python: begins with ApiVersions v4, and falls back as the broker tells it."""

import functools

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.protocol.consumer import OffsetSpec
from kafka.protocol.metadata import ApiVersionsRequest, ApiVersionsResponse

from harness import BASE_MS, COUNT, DEADLINE_S, Rec, assert_same, eventually, stream as full_stream, unique
from reading import make_topic, read_all
from wire import Wire, packed_codecs, stored_batches

stream = functools.partial(full_stream, null_headers=False)
CODECS = (None, "gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def admin(broker):
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield client
    client.close()


def produce(broker, topic, tag, **settings):
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, linger_ms=20, **settings)
    try:
        futures = [
            producer.send(topic, value=rec.value, key=rec.key, partition=rec.partition, timestamp_ms=rec.timestamp,
                          headers=list(rec.headers))
            for rec in stream(tag)
        ]
        producer.flush(DEADLINE_S)
        return [future.get(DEADLINE_S) for future in futures]
    finally:
        producer.close()


def consumer(broker, **settings):
    return KafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False, auto_offset_reset="none",
                         check_crcs=True, **settings)


def read(reader, want):
    """Polls an assigned consumer for `want` records."""
    got = []

    def probe():
        for batch in reader.poll(timeout_ms=200).values():
            got.extend(Rec(m.partition, m.offset, m.timestamp, m.key, m.value, tuple(m.headers)) for m in batch)
        return len(got) >= want

    eventually(probe, f"{want} records")
    return got


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker, admin, codec):
    topic = unique(f"kpy-{codec}")
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    sent = produce(broker, topic, "p", compression_type=codec)
    assert [(m.partition, m.offset) for m in sent] == [(r.partition, r.offset) for r in stream("p")]
    reader = consumer(broker)
    try:
        reader.assign([TopicPartition(topic, p) for p in (0, 1)])
        reader.seek_to_beginning()
        assert_same(read(reader, COUNT), stream("p"))
    finally:
        reader.close()
    assert_same(read_all(broker.bootstrap, topic), stream("p"))
    assert packed_codecs(broker.bootstrap, topic) == {codec or "none"}


def test_idempotent(broker):
    topic = unique("kpy-idempotent")
    make_topic(broker.bootstrap, topic)
    produce(broker, topic, "i", enable_idempotence=True, batch_size=2000)
    assert_same(read_all(broker.bootstrap, topic), stream("i"))
    for partition in (0, 1):
        batches = stored_batches(broker.bootstrap, topic, partition)
        assert batches[0].producer_id >= 0
        assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


def test_seek_by_time_and_offset(broker):
    topic = unique("kpy-seek")
    make_topic(broker.bootstrap, topic)
    produce(broker, topic, "s", batch_size=1000)
    reader = consumer(broker)
    try:
        tps = [TopicPartition(topic, p) for p in (0, 1)]
        found = reader.offsets_for_times({tps[0]: BASE_MS, tps[1]: BASE_MS + 101_500})
        assert {tp.partition: (f.offset, f.timestamp) for tp, f in found.items()} == {
            0: (0, BASE_MS), 1: (51, BASE_MS + 103_000)}
        assert reader.offsets_for_times({tps[0]: BASE_MS + COUNT * 1000}) == {tps[0]: None}
        assert reader.beginning_offsets(tps) == {tp: 0 for tp in tps}
        assert reader.end_offsets(tps) == {tp: COUNT // 2 for tp in tps}
        reader.assign(tps)
        reader.seek(tps[0], 149)
        reader.seek(tps[1], 51)
        assert_same(read(reader, 100), [r for r in stream("s") if r.offset >= (149 if r.partition == 0 else 51)])
        reader.assign(tps[:1])
        reader.seek(tps[0], 1_000)
        with pytest.raises(errors.OffsetOutOfRangeError):
            eventually(lambda: reader.poll(timeout_ms=200), "an error")
    finally:
        reader.close()


def test_admin_topics(broker, admin):
    topic = unique("kpy-admin")
    admin.create_topics({topic: {"num_partitions": 3, "configs": {"retention.ms": "1000000"}}},
                        wait_for_metadata=True)
    assert topic in admin.list_topics()
    described, = admin.describe_topics([topic])
    assert [p["partition_index"] for p in described["partitions"]] == [0, 1, 2]
    paged = admin.describe_topic_partitions([topic])
    assert "3" in str(paged) or paged
    admin.create_partitions({topic: 5})
    eventually(lambda: len(admin.describe_topics([topic])[0]["partitions"]) == 5, "five partitions")
    cluster = admin.describe_cluster()
    assert cluster["cluster_id"] and len(cluster["brokers"]) == 1
    admin.delete_topics([topic])
    eventually(lambda: topic not in admin.list_topics(), "the topic is gone")


@pytest.mark.parametrize("name, options, error", [
    ("no/slashes", {}, errors.InvalidTopicError),
    ("x" * 250, {}, errors.InvalidTopicError),
    ("..", {}, errors.InvalidTopicError),
    ("kpy-many-replicas", {"replication_factor": 3}, errors.InvalidReplicationFactorError),
    ("kpy-no-partitions", {"num_partitions": 0}, errors.InvalidPartitionsError),
    ("kpy-bad-value", {"configs": {"retention.ms": "soon"}}, errors.InvalidConfigurationError),
    ("kpy-bad-key", {"configs": {"no.such.key": "1"}}, errors.InvalidConfigurationError),
])
def test_create_topics_refusals(admin, name, options, error):
    with pytest.raises(error):
        admin.create_topics({name: options})


def test_admin_refusals(broker, admin):
    topic, missing = unique("kpy-exists"), unique("kpy-missing")
    make_topic(broker.bootstrap, topic)
    with pytest.raises(errors.TopicAlreadyExistsError):
        admin.create_topics([topic])
    with pytest.raises(errors.UnknownTopicOrPartitionError):
        admin.delete_topics([missing])
    with pytest.raises(errors.InvalidPartitionsError):
        admin.create_partitions({topic: 1})
    with pytest.raises(errors.OffsetOutOfRangeError):
        admin.delete_records({TopicPartition(topic, 0): 5})


@pytest.mark.parametrize("incremental", (True, False))
def test_admin_configs(broker, admin, incremental):
    topic = unique("kpy-configs")
    make_topic(broker.bootstrap, topic, segment_bytes="2000000")

    def described():
        return admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)],
                                      config_filter="all")["topic"][topic]

    def alter(configs):
        answer = admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)],
                                     incremental=incremental, raise_on_unknown=False)
        return answer["topic"][topic]

    assert described()["segment.bytes"]["value"] == "2000000"
    assert alter({"retention.ms": "5000000"}) == "OK"
    eventually(lambda: described()["retention.ms"]["value"] == "5000000", "the new value")
    assert described()["segment.bytes"]["value"] == "2000000"
    assert "InvalidConfig" in alter({"retention.ms": "soon"})
    assert "InvalidConfig" in alter({"no.such.key": "1"})
    if incremental:
        assert alter({"cleanup.policy": (AlterConfigOp.APPEND, "compact")}) == "OK"
        eventually(lambda: described()["cleanup.policy"]["value"] == "delete,compact", "both policies")
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, topic, ["retention.ms"])], incremental=incremental)
    eventually(lambda: described()["retention.ms"]["value"] == "604800000", "the default again")


def test_admin_offsets_and_delete_records(broker, admin):
    topic = unique("kpy-offsets")
    make_topic(broker.bootstrap, topic)
    produce(broker, topic, "o")
    tp = TopicPartition(topic, 1)

    def listed(spec):
        found = admin.list_partition_offsets({tp: spec})[tp]
        return found.offset, found.timestamp

    assert listed(OffsetSpec.EARLIEST)[0] == 0
    assert listed(OffsetSpec.LATEST)[0] == COUNT // 2
    assert listed(OffsetSpec.MAX_TIMESTAMP) == (COUNT // 2 - 1, BASE_MS + (COUNT - 1) * 1000)
    assert admin.delete_records({tp: 40})[tp]["low_watermark"] == 40
    assert listed(OffsetSpec.EARLIEST)[0] == 40
    assert_same(read_all(broker.bootstrap, topic), [r for r in stream("o") if r.partition == 0 or r.offset >= 40])


def test_message_too_large(broker):
    topic = unique("kpy-large")
    make_topic(broker.bootstrap, topic, 1, max_message_bytes="10000")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=10_000_000, retries=0)
    try:
        assert producer.send(topic, b"v" * 9_000).get(DEADLINE_S).offset == 0
        with pytest.raises(errors.MessageSizeTooLargeError):
            producer.send(topic, b"v" * 11_000).get(DEADLINE_S)
    finally:
        producer.close()


def test_auto_creation(broker):
    topic = unique("kpy-auto")
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    try:
        assert producer.send(topic, b"v").get(DEADLINE_S).offset == 0
    finally:
        producer.close()


def test_auto_creation_off(broker):
    if broker.no_auto is None:
        pytest.skip("needs a broker started with auto.create.topics.enable=false")
    producer = KafkaProducer(bootstrap_servers=broker.no_auto, max_block_ms=1000)
    try:
        with pytest.raises(errors.KafkaError):
            producer.send(unique("kpy-no-auto"), b"v").get(DEADLINE_S)
    finally:
        producer.close()


@pytest.mark.parametrize("version", (0, 1, 2, 3, 4))
def test_api_versions(broker, version):
    with Wire(broker.bootstrap) as wire:
        answer = wire.call(ApiVersionsRequest(version=version, client_software_name="wire",
                                              client_software_version="1"), ApiVersionsResponse)
    assert answer["error_code"] == 0
    ranges = {k["api_key"]: (k["min_version"], k["max_version"]) for k in answer["api_keys"]}
    assert ranges[0][0] == 0, "older librdkafka turns compression off unless Produce begins at version 0"
    assert ranges[18][1] >= 4 and ranges[1][0] <= 4


def test_api_versions_of_the_future(broker):
    """An unknown version is answered with a v0 body and the list, so that the client can begin again."""
    with Wire(broker.bootstrap) as wire:
        wire.socket.sendall(bytes.fromhex("0000000e 0012 007f 00000001 0001 61 00 00 00"))
        wire.correlation_id = 1
        answer = wire.receive(ApiVersionsResponse, 0)
    assert answer["error_code"] == 35
    assert 18 in [k["api_key"] for k in answer["api_keys"]]
