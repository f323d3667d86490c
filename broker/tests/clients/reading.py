"""An independent reader and a maker of topics (librdkafka), with which every other client's work is checked."""

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from harness import DEADLINE_S, Rec, eventually


def make_topic(bootstrap, topic, partitions=2, **config):
    """Creates a topic; the keys of `config` have underscores for dots.

    Waits until every partition answers: right after a creation, Kafka refuses some requests for a moment.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap})
    settings = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(DEADLINE_S)
    latest = {TopicPartition(topic, p): OffsetSpec.latest() for p in range(partitions)}
    eventually(lambda: all(not f.exception(DEADLINE_S) for f in admin.list_offsets(latest).values()), f"{topic} answers")


def consumer(bootstrap, **settings):
    """A consumer for assignment: librdkafka wants a group's name all the same, and never uses it."""
    return Consumer({
        "bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
        "auto.offset.reset": "error", "enable.partition.eof": False, "check.crcs": True,
        "fetch.wait.max.ms": 50, **settings,
    })


def partitions_of(bootstrap, topic):
    metadata = AdminClient({"bootstrap.servers": bootstrap}).list_topics(topic, DEADLINE_S).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


def read_all(bootstrap, topic, partitions=None):
    """All records of a topic between the start and the end of each partition as they are now."""
    reader = consumer(bootstrap)
    try:
        if partitions is None:
            partitions = partitions_of(bootstrap, topic)
        bounds = {p: reader.get_watermark_offsets(TopicPartition(topic, p), DEADLINE_S) for p in partitions}
        return drain(reader, topic, {p: low for p, (low, high) in bounds.items() if low < high},
                     {p: high for p, (_, high) in bounds.items()})
    finally:
        reader.close()


def drain(reader, topic, starts, ends):
    """Assigns `topic` at the offsets `starts` and reads each partition up to its offset in `ends`."""
    reader.assign([TopicPartition(topic, p, offset) for p, offset in starts.items()])
    records, open_partitions = [], set(starts)
    deadline = time.monotonic() + DEADLINE_S
    while open_partitions:
        assert time.monotonic() < deadline, f"{topic}: partitions {open_partitions} not read to the end"
        for message in reader.consume(1000, 0.05):
            if message.error():
                raise KafkaException(message.error())
            rec = as_rec(message)
            if rec.offset < ends[rec.partition]:
                records.append(rec)
            if rec.offset + 1 >= ends[rec.partition]:
                open_partitions.discard(rec.partition)
    return records


def as_rec(message):
    return Rec(message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
               tuple(message.headers() or ()))
