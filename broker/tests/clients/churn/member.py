"""A member of a group, or the producer: a process that reports what it saw (reports.py) until SIGTERM.

    python member.py librdkafka|kafka-python BOOTSTRAP GROUP TOPIC REPORT [INSTANCE_ID] [ASSIGNOR]
    python member.py producer BOOTSTRAP PARTITIONS TOPIC REPORT RATE

A member reports records before it commits them, and a commit once it was acknowledged. It ends with status 3 when
another has taken its instance id.
"""

import pathlib
import random
import signal
import sys
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from churn.reports import writer  # noqa: E402

SESSION_MS = 6_000
HEARTBEAT_MS = 1_000
REBALANCE_MS = 15_000
COMMIT_RECORDS = 50
COMMIT_S = 0.3
FENCED = 3


def librdkafka(stopping, bootstrap, group, topic, report, instance="", assignor="range,roundrobin"):
    from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
    say = writer(report)
    settings = {"group.instance.id": instance} if instance else {}
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
        "partition.assignment.strategy": assignor, "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS,
        "max.poll.interval.ms": REBALANCE_MS, "reconnect.backoff.max.ms": 500, "fetch.wait.max.ms": 100, **settings})
    pending = {}  # next offsets that are reported and not committed, by partition
    put_out = []  # it is no member, and knows it, until it loses its partitions
    fenced = []  # librdkafka's fatal errors: of a consumer, these alone

    def commit(partitions):
        asked = [TopicPartition(topic, p, pending[p]) for p in partitions if p in pending]
        if not asked or put_out:
            return
        try:
            done = consumer.commit(offsets=asked, asynchronous=False)
        except KafkaException as refused:
            say([f"commit: {refused}"])
            if refused.args[0].code() == KafkaError._FATAL:
                fenced.append(refused)
            # librdkafka joins anew beside us: a commit under the former id would then be fenced by the member's own new one.
            put_out[:] = [refused] if refused.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID else []
            return
        done = [each for each in done if each.error is None]
        say(f"c {each.partition} {each.offset}" for each in done)
        for each in done:
            pending.pop(each.partition, None)

    def revoked(_consumer, partitions):
        numbers = [each.partition for each in partitions]
        commit(numbers)
        lost(_consumer, partitions)

    def lost(_consumer, partitions):
        put_out.clear()
        for each in partitions:
            pending.pop(each.partition, None)

    consumer.subscribe([topic], on_revoke=revoked, on_lost=lost)
    due, next_commit = 0, 0.0
    while not stopping and not fenced:
        message = consumer.poll(0.1)
        if message is not None and message.error():
            say([f"error: {message.error()}"])
            if message.error().code() == KafkaError._FATAL:
                fenced.append(message.error())
        elif message is not None:
            say([f"r {message.partition()} {message.offset()} {int(message.value())}"])
            pending[message.partition()] = message.offset() + 1
            due += 1
        if due >= COMMIT_RECORDS or (due and time.monotonic() > next_commit):
            commit(list(pending))
            due = 0
        if not due:
            next_commit = time.monotonic() + COMMIT_S
    if fenced:
        return FENCED
    consumer.close()
    return 0


def kafka_python(stopping, bootstrap, group, topic, report, instance="", assignor="range"):
    from kafka import ConsumerRebalanceListener, KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.errors import FencedInstanceIdError, KafkaError
    from kafka.structs import OffsetAndMetadata
    assert assignor == "range"
    say = writer(report)
    pending = {}  # next offsets that are reported and not committed

    class Forget(ConsumerRebalanceListener):
        def on_partitions_revoked(self, _revoked):
            pending.clear()

        def on_partitions_assigned(self, _assigned):
            pass

    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, group_id=group, group_instance_id=instance or None, enable_auto_commit=False,
        auto_offset_reset="earliest", session_timeout_ms=SESSION_MS, heartbeat_interval_ms=HEARTBEAT_MS,
        max_poll_interval_ms=REBALANCE_MS, reconnect_backoff_max_ms=500, fetch_max_wait_ms=100,
        partition_assignment_strategy=(RangePartitionAssignor, RoundRobinPartitionAssignor))
    consumer.subscribe([topic], listener=Forget())
    while not stopping:
        try:
            batches = consumer.poll(timeout_ms=200, max_records=COMMIT_RECORDS)
            say(f"r {r.partition} {r.offset} {int(r.value)}" for records in batches.values() for r in records)
            pending.update((at, records[-1].offset + 1) for at, records in batches.items())
            offsets = dict(pending)
            if offsets:
                consumer.commit({at: OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()})
                pending.clear()
                say(f"c {at.partition} {offset}" for at, offset in offsets.items())
        except FencedInstanceIdError as error:
            say([f"error: {error!r}"])
            return FENCED
        except KafkaError as error:
            say([f"error: {error!r}"])
    consumer.close(autocommit=False)
    return 0


def producer(stopping, bootstrap, partitions, topic, report, rate):
    from confluent_kafka import Producer
    say, acknowledged, failed = writer(report), [], []
    client = Producer({
        "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 20,
        "message.timeout.ms": 3_600_000, "reconnect.backoff.max.ms": 200})

    def delivered(error, message):
        if error:
            failed.append(error)
        else:
            acknowledged.append(f"a {message.partition()} {message.offset()} {int(message.value())}")

    draw, number, started = random.Random(0), 0, time.monotonic()
    while not stopping or len(client):
        while not stopping and number < (time.monotonic() - started) * float(rate) and len(client) < 50_000:
            client.produce(topic, str(number), partition=draw.randrange(int(partitions)), on_delivery=delivered)
            number += 1
        client.poll(0.02)
        say(acknowledged + [f"failed: {error}" for error in failed])
        acknowledged.clear()
        if failed:
            return 1
    return 0


if __name__ == "__main__":
    asked_to_stop = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))
    kinds = {"librdkafka": librdkafka, "kafka-python": kafka_python, "producer": producer}
    sys.exit(kinds[sys.argv[1]](asked_to_stop, *sys.argv[2:]))
