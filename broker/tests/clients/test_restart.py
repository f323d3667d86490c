"""What was acknowledged is there after restarts, under any number of shards, with topics, configs and offsets."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource

from harness import COUNT, DEADLINE_S, Broker, assert_same, start_penstock, stream, unique
from reading import make_topic, read_all
from test_confluent import produce

@pytest.fixture
def lives(binary, tmp_path_factory):
    """Brokers over one data directory: each is stopped, and has to end with status 0, before the next begins."""
    data, running = tmp_path_factory.mktemp("lives") / "data", []

    def stop():
        while running:
            process = running.pop()
            assert process.stop() == 0, process.tail()
            process.remove()

    def start(shards):
        stop()
        process, address, _ = start_penstock(binary, shards, data=data)
        running.append(process)
        return Broker(address, is_kafka=False, no_auto=None)

    yield start
    stop()


def described(broker, topic):
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    configs = admin.describe_configs([resource])[resource].result(DEADLINE_S)
    return configs["retention.ms"].value, admin.list_topics(topic, DEADLINE_S).cluster_id


# The numbers of shards that one data directory is opened with, one after the other.
@pytest.mark.parametrize("counts", ((2, 2, 2), (1, 4, 2, 3)))
def test_restarts(lives, counts):
    told = set()
    topics = {codec: unique(f"restart-{codec}") for codec in ("none", "gzip", "zstd")}
    wide = unique("restart-wide")
    for life, shards in enumerate(counts):
        broker = lives(shards)
        if life == 0:
            for topic in topics.values():
                make_topic(broker.bootstrap, topic, retention_ms="700000000")
            make_topic(broker.bootstrap, wide, 20)
        for codec, topic in topics.items():
            told.add(described(broker, topic))
            before = [again(r, n) for n in range(life) for r in stream(codec)]
            kept = [r for r in before if r.partition == 0 or r.offset >= 40] if life else before
            assert_same(read_all(broker.bootstrap, topic), kept)
            assert produce(broker, topic, codec, **{"compression.type": codec, "enable.idempotence": True}) == []
            if life == 0:
                admin = AdminClient({"bootstrap.servers": broker.bootstrap})
                for future in admin.delete_records([TopicPartition(topic, 1, 40)]).values():
                    future.result(DEADLINE_S)
        spread(broker, wide, life)
    assert len(told) == 1, "configs and the cluster's id stay"


def again(rec, life):
    """A record of a stream that was sent once in each life."""
    return rec._replace(offset=rec.offset + life * COUNT // 2)


def spread(broker, topic, life):
    """Adds a record to each of 20 partitions, and finds those of all lives."""
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for partition in range(20):
        producer.produce(topic, f"{life}", partition=partition)
    assert producer.flush(DEADLINE_S) == 0
    got = sorted((r.partition, r.offset, int(r.value)) for r in read_all(broker.bootstrap, topic))
    assert got == [(p, n, n) for p in range(20) for n in range(life + 1)]


def test_restart_under_a_running_producer(binary, tmp_path):
    """A producer that stays, idempotent, goes on where it was when the broker comes back on the same address."""
    process, address, _ = start_penstock(binary, 2, data=tmp_path / "data")
    topic = unique("restart-running")
    make_topic(address, topic, 1)
    failed = []
    producer = Producer({
        "bootstrap.servers": address, "enable.idempotence": True, "reconnect.backoff.max.ms": 100, "linger.ms": 1,
    })

    def send(numbers):
        for i in numbers:
            producer.produce(topic, b"%d" % i, on_delivery=lambda e, _m: failed.append(e) if e else None)
            producer.poll(0)

    send(range(1000))
    assert producer.flush(DEADLINE_S) == 0
    assert process.stop() == 0, process.tail()
    process.remove()
    send(range(1000, 2000))
    process, again_at, _ = start_penstock(binary, 2, data=tmp_path / "data", listen=address)
    try:
        assert again_at == address
        send(range(2000, 3000))
        assert producer.flush(DEADLINE_S) == 0 and failed == []
        assert [int(r.value) for r in read_all(address, topic)] == list(range(3000))
    finally:
        assert process.stop() == 0, process.tail()
        process.remove()
