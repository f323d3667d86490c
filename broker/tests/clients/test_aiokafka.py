"""aiokafka."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from harness import BASE_MS, COUNT, DEADLINE_S, Rec, assert_same, stream, unique
from reading import make_topic, read_all
from wire import packed_codecs, stored_batches

CODECS = (None, "gzip", "snappy", "lz4", "zstd")


def run(coroutine):
    async def bounded():
        return await asyncio.wait_for(coroutine, DEADLINE_S)
    return asyncio.run(bounded())


class Session:
    """A client that is started and stopped around a block."""

    def __init__(self, kind, broker, *args, **settings):
        self.make = lambda: kind(*args, bootstrap_servers=broker.bootstrap, **settings)

    async def __aenter__(self):
        self.client = self.make()
        await self.client.start()
        return self.client

    async def __aexit__(self, *_):
        await (getattr(self.client, "stop", None) or self.client.close)()


async def produce(broker, topic, tag, **settings):
    async with Session(AIOKafkaProducer, broker, linger_ms=20, **settings) as producer:
        futures = [
            await producer.send(topic, value=rec.value, key=rec.key, partition=rec.partition,
                                timestamp_ms=rec.timestamp, headers=list(rec.headers))
            for rec in stream(tag)
        ]
        return [await future for future in futures]


async def read(consumer, want):
    got = []
    while len(got) < want:
        for batch in (await consumer.getmany(timeout_ms=200)).values():
            got.extend(Rec(m.partition, m.offset, m.timestamp, m.key, m.value, tuple(m.headers)) for m in batch)
    return got


def consumer_of(broker):
    return Session(AIOKafkaConsumer, broker, enable_auto_commit=False, auto_offset_reset="none", check_crcs=True)


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker, codec):
    topic = unique(f"aio-{codec}")

    async def scenario():
        async with Session(AIOKafkaAdminClient, broker) as admin:
            answer = await admin.create_topics([NewTopic(topic, 2, 1)])
            assert [t[1] for t in answer.topic_errors] == [0]
        sent = await produce(broker, topic, "a", compression_type=codec)
        assert [(m.partition, m.offset) for m in sent] == [(r.partition, r.offset) for r in stream("a")]
        async with consumer_of(broker) as consumer:
            consumer.assign([TopicPartition(topic, p) for p in (0, 1)])
            await consumer.seek_to_beginning()
            assert_same(await read(consumer, COUNT), stream("a"))

    run(scenario())
    assert_same(read_all(broker.bootstrap, topic), stream("a"))
    assert packed_codecs(broker.bootstrap, topic) == {codec or "none"}


def test_idempotent(broker):
    topic = unique("aio-idempotent")
    make_topic(broker.bootstrap, topic)
    run(produce(broker, topic, "i", enable_idempotence=True, max_batch_size=2000))
    assert_same(read_all(broker.bootstrap, topic), stream("i"))
    for partition in (0, 1):
        batches = stored_batches(broker.bootstrap, topic, partition)
        assert batches[0].producer_id >= 0
        assert [b.base_sequence for b in batches] == [b.base_offset for b in batches]


def test_seek_by_time_and_offset(broker):
    topic = unique("aio-seek")
    make_topic(broker.bootstrap, topic)

    async def scenario():
        await produce(broker, topic, "s", max_batch_size=1000)
        tps = [TopicPartition(topic, p) for p in (0, 1)]
        async with consumer_of(broker) as consumer:
            found = await consumer.offsets_for_times({tps[0]: BASE_MS, tps[1]: BASE_MS + 101_500})
            assert {tp.partition: (f.offset, f.timestamp) for tp, f in found.items()} == {
                0: (0, BASE_MS), 1: (51, BASE_MS + 103_000)}
            assert await consumer.offsets_for_times({tps[0]: BASE_MS + COUNT * 1000}) == {tps[0]: None}
            assert await consumer.beginning_offsets(tps) == {tp: 0 for tp in tps}
            assert await consumer.end_offsets(tps) == {tp: COUNT // 2 for tp in tps}
            consumer.assign(tps)
            consumer.seek(tps[0], 149)
            consumer.seek(tps[1], 51)
            want = [r for r in stream("s") if r.offset >= (149 if r.partition == 0 else 51)]
            assert_same(await read(consumer, len(want)), want)
            consumer.assign(tps[:1])
            consumer.seek(tps[0], 1_000)
            with pytest.raises(errors.OffsetOutOfRangeError):
                await consumer.getone()

    run(scenario())


def test_admin(broker):
    topic = unique("aio-admin")

    async def scenario():
        async with Session(AIOKafkaAdminClient, broker) as admin:
            await admin.create_topics([NewTopic(topic, 3, 1, topic_configs={"retention.ms": "1000000"})])
            again = await admin.create_topics([NewTopic(topic, 3, 1)])
            assert [t[1] for t in again.topic_errors] == [errors.TopicAlreadyExistsError.errno]
            bad = await admin.create_topics([NewTopic("no/slashes", 1, 1)])
            assert [t[1] for t in bad.topic_errors] == [errors.InvalidTopicError.errno]
            assert topic in await admin.list_topics()
            described, = await admin.describe_topics([topic])
            assert len(described["partitions"]) == 3
            assert (await admin.describe_cluster())["cluster_id"]

            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "2000000"})
            altered = await admin.alter_configs([resource])
            assert [r.error_code if hasattr(r, "error_code") else r[0] for r in altered[0].resources] == [0]
            while await config(admin, topic, "retention.ms") != "2000000":
                pass
            assert await config(admin, topic, "segment.bytes") == "1073741824"

            await admin.create_partitions({topic: NewPartitions(4)})
            while len((await admin.describe_topics([topic]))[0]["partitions"]) != 4:
                pass
            await produce(broker, topic, "d")
            low = await admin.delete_records({TopicPartition(topic, 1): RecordsToDelete(40)})
            assert low == {TopicPartition(topic, 1): 40}
            await admin.delete_topics([topic])
            while topic in await admin.list_topics():
                pass

    async def config(admin, topic, name):
        answer, = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}[name]

    run(scenario())


def test_message_too_large(broker):
    topic = unique("aio-large")
    make_topic(broker.bootstrap, topic, 1, max_message_bytes="10000")

    async def scenario():
        async with Session(AIOKafkaProducer, broker, max_request_size=10_000_000) as producer:
            assert (await producer.send_and_wait(topic, b"v" * 9_000)).offset == 0
            with pytest.raises(errors.MessageSizeTooLargeError):
                await producer.send_and_wait(topic, b"v" * 11_000)

    run(scenario())


def test_auto_creation(broker):
    topic = unique("aio-auto")

    async def scenario():
        async with Session(AIOKafkaProducer, broker) as producer:
            assert (await producer.send_and_wait(topic, b"v")).offset == 0

    run(scenario())
