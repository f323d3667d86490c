"""Records over the 11 partitions of a topic, by the partitioners of each family of clients.

Without keys they spread over all; with keys, all of a key are in one partition, in order. Which one, each partitioner
must say for itself: murmur2 for Java's, kafkajs's and kafka-python's, CRC-32 for librdkafka's own.
"""

import zlib
from collections import defaultdict

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer

from harness import DEADLINE_S, unique
from reading import make_topic, read_all
from test_java import driven as java_driven
from test_kafkajs import driven as kafkajs_driven
from test_kcat import kcat

PARTITIONS = 11


def murmur2(data):
    """Kafka's 32-bit murmur2, made positive."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    for at in range(0, len(data) // 4 * 4, 4):
        k = int.from_bytes(data[at:at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = h * m & mask ^ k
    rest = data[len(data) // 4 * 4:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return (h ^ h >> 15) & 0x7FFFFFFF


def by_murmur2(key):
    return murmur2(key) % PARTITIONS


def by_crc32(key):
    return zlib.crc32(key) % PARTITIONS


def check_keyed(broker, topic, partition_of, count=500, keys=50):
    """`count` records, value i with key-(i % keys): each key in its partition, its values in order, none missing."""
    values = defaultdict(list)
    for rec in read_all(broker.bootstrap, topic):
        assert rec.partition == partition_of(rec.key), f"{rec.key} in partition {rec.partition}"
        values[rec.key].append(int(rec.value))
    assert values == {b"key-%d" % k: list(range(k, count, keys)) for k in range(keys)}


def check_spread(broker, topic, count):
    got = read_all(broker.bootstrap, topic)
    assert sorted(int(rec.value) for rec in got) == list(range(count))
    assert {rec.partition for rec in got} == set(range(PARTITIONS))


def test_java(broker):
    prefix = java_driven(broker).prefix
    check_keyed(broker, f"{prefix}-partitioner", by_murmur2)
    check_spread(broker, f"{prefix}-partitioner-plain", 8000)


def test_kafkajs(broker):
    prefix = kafkajs_driven(broker).prefix
    check_keyed(broker, f"{prefix}-partitioner", by_murmur2)
    check_spread(broker, f"{prefix}-partitioner-plain", 220)


@pytest.mark.parametrize("partitioner, partition_of", (("consistent_random", by_crc32), ("murmur2_random", by_murmur2)))
def test_librdkafka(broker, partitioner, partition_of):
    keyed, plain = unique("part-keyed"), unique("part-plain")
    for topic in (keyed, plain):
        make_topic(broker.bootstrap, topic, PARTITIONS)
    producer = Producer({
        "bootstrap.servers": broker.bootstrap, "partitioner": partitioner, "enable.idempotence": True,
        "sticky.partitioning.linger.ms": 0,
    })
    for i in range(500):
        producer.produce(keyed, str(i), f"key-{i % 50}")
    for i in range(1000):
        producer.produce(plain, str(i))
    assert producer.flush(DEADLINE_S) == 0
    check_keyed(broker, keyed, partition_of)
    check_spread(broker, plain, 1000)


def test_kcat(broker):
    keyed = unique("part-kcat")
    make_topic(broker.bootstrap, keyed, PARTITIONS)
    lines = "".join(f"key-{i % 50}|{i}\n" for i in range(500))
    kcat(broker.bootstrap, "-P", "-t", keyed, "-K", "|", "-X", "enable.idempotence=true", stdin=lines.encode())
    check_keyed(broker, keyed, by_crc32)


def test_kafka_python(broker):
    keyed = unique("part-kpy")
    make_topic(broker.bootstrap, keyed, PARTITIONS)
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    try:
        for i in range(500):
            producer.send(keyed, b"%d" % i, b"key-%d" % (i % 50))
        producer.flush(DEADLINE_S)
    finally:
        producer.close()
    check_keyed(broker, keyed, by_murmur2)
