"""Requests about records: Produce, Fetch, ListOffsets, DeleteRecords, OffsetForLeaderEpoch, InitProducerId.

They run in this order, and later ones see what earlier ones wrote.
"""

from batches import NOW, batch, legacy_message, record
from harness import eventually


def produce(topic, *records, partition=0, acks=-1, **more):
    return {"acks": acks, "timeout_ms": 5000, "topic_data": [
        {"name": topic, "partition_data": [{"index": partition, "records": r} for r in records]}], **more}


def broken_batches():
    good = batch(now_ms=NOW)
    yield "no records", b""
    yield "half a batch", good[:40]
    yield "a batch without its end", good[:-1]
    yield "two batches", good + good
    yield "trailing bytes", good + b"\0\0\0"
    yield "wrong crc", batch(now_ms=NOW, crc=1)
    yield "format 0", legacy_message(0)
    yield "format 1", legacy_message(1)
    yield "format 3", batch(now_ms=NOW, magic=3)
    yield "length too small", batch(now_ms=NOW, length=10)
    yield "length negative", batch(now_ms=NOW, length=-5)
    yield "length huge", batch(now_ms=NOW, length=1 << 30)
    yield "count too large", batch(now_ms=NOW, count=2)
    yield "count and last offset too large", batch(now_ms=NOW, count=2, last_offset_delta=1)
    yield "count too small", batch([record(0), record(1)], NOW, count=1)
    yield "count negative", batch(now_ms=NOW, count=-1)
    yield "count zero", batch([], NOW, count=0, last_offset_delta=0)
    yield "last offset too large", batch(now_ms=NOW, last_offset_delta=5)
    yield "last offset negative", batch(now_ms=NOW, last_offset_delta=-1)
    yield "deltas not in sequence", batch([record(0), record(5)], NOW, last_offset_delta=5)
    yield "deltas from one", batch([record(1), record(2)], NOW)
    yield "base offset 7", batch(now_ms=NOW, base_offset=7)
    yield "leader epoch 9", batch(now_ms=NOW, leader_epoch=9)
    yield "no timestamp", batch(now_ms=-1)
    yield "negative timestamp", batch(now_ms=-5)
    yield "timestamp two hours ahead", batch(now_ms=NOW + 10_800_000)
    yield "timestamp of long ago", batch(now_ms=1)
    yield "max timestamp wrong", batch(now_ms=NOW, max_timestamp=NOW + 5)
    yield "record attributes", batch([record(0, attributes=1)], NOW)
    yield "null key and value", batch([record(0, key=None, value=None)], NOW)
    yield "control batch", batch(now_ms=NOW, attributes=0x20)
    yield "transactional batch", batch(now_ms=NOW, attributes=0x10, producer_id=5, producer_epoch=0, sequence=0)
    yield "transactional without producer", batch(now_ms=NOW, attributes=0x10)
    yield "delete horizon", batch(now_ms=NOW, attributes=0x40)
    yield "unknown attribute", batch(now_ms=NOW, attributes=0x100)
    yield "log append time bit", batch(now_ms=NOW, attributes=8)
    yield "codec 5", batch(now_ms=NOW, attributes=5)
    yield "codec 7", batch(now_ms=NOW, attributes=7)
    yield "gzip", batch([record(0), record(1)], NOW, gzip=True)
    yield "gzip, count too large", batch([record(0), record(1)], NOW, gzip=True, count=3, last_offset_delta=2)
    yield "gzip, deltas not in sequence", batch([record(0), record(5)], NOW, gzip=True, last_offset_delta=5)
    yield "gzip of garbage", batch(now_ms=NOW, body=b"garbage", attributes=1)
    yield "snappy of garbage", batch(now_ms=NOW, body=b"garbage", attributes=2)
    yield "lz4 of garbage", batch(now_ms=NOW, body=b"garbage", attributes=3)
    yield "zstd of garbage", batch(now_ms=NOW, body=b"garbage", attributes=4)
    yield "record of garbage", batch([b"\x03garbage"], NOW)
    yield "record longer than the batch", batch([b"\x7egarbage"], NOW)
    yield "bytes after the records", batch([record(0), b"\0\0\0"], NOW, count=1, last_offset_delta=0)
    yield "header with a null name", batch([record(0, headers=[(None, b"x")])], NOW)
    yield "producer without sequence", batch(now_ms=NOW, producer_id=5, producer_epoch=0)
    yield "producer without epoch", batch(now_ms=NOW, producer_id=5, sequence=0)


# What one broker appends and another may refuse goes to a topic of its own: it must not shift the others' offsets.
ODD = {"trailing bytes", "deltas from one", "log append time bit", "producer without epoch"}


def produce_cases(prefix):
    one, odd = f"{prefix}.one", f"{prefix}.odd"
    good = batch(now_ms=NOW)
    for name, records in broken_batches():
        yield f"Produce {name}", "Produce", 9, produce(odd if name in ODD else one, records)
    yield "Produce at every version", "Produce", list(range(3, 13)), produce(one, good)
    yield "Produce zstd at v6", "Produce", 6, produce(one, batch(now_ms=NOW, attributes=4))
    for acks in (1, 2, -2):
        yield f"Produce acks {acks}", "Produce", 9, produce(one, good, acks=acks)
    yield "Produce to an unknown topic", "Produce", 9, produce(f"{prefix}.missing", good)
    yield "Produce to a bad topic", "Produce", 9, produce("a/b", good)
    yield "Produce to partition 1 of 1", "Produce", 9, produce(one, good, partition=1)
    yield "Produce to partition -1", "Produce", 9, produce(one, good, partition=-1)
    yield "Produce to one partition twice", "Produce", 9, produce(odd, good, good)
    yield "Produce to nothing", "Produce", 9, {"acks": -1, "timeout_ms": 5000, "topic_data": []}
    yield "Produce by unknown id", "Produce", 13, {"acks": -1, "timeout_ms": 5000, "topic_data": [
        {"topic_id": "12345678-1234-1234-1234-123456789abc", "partition_data": [{"index": 0, "records": good}]}]}
    yield "Produce by id", "Produce", 13, lambda side: {"acks": -1, "timeout_ms": 5000, "topic_data": [
        {"topic_id": side.kept["ids"][one], "partition_data": [{"index": 0, "records": good}]}]}
    yield "Produce without a key", "Produce", 9, produce(f"{prefix}.compact", batch(
        [record(0), record(1, key=None), record(2), record(3, key=None)], NOW))
    yield "Produce without a key, gzip", "Produce", 9, produce(f"{prefix}.compact", batch(
        [record(0, key=None)], NOW, gzip=True))
    large = batch([record(0, value=b"x" * 1000)], NOW)
    yield "Produce too large", "Produce", 9, produce(f"{prefix}.small", large)
    yield "Produce with append time", "Produce", 9, produce(f"{prefix}.time", batch(now_ms=5))
    yield "Produce far future with append time", "Produce", 9, produce(f"{prefix}.time", batch(now_ms=NOW * 2))
    yield "Produce two hours ahead, several", "Produce", 9, produce(one, batch(
        [record(0), record(1, 10_800_000), record(2)], NOW, max_timestamp=NOW + 10_800_000))


def sequence_cases(prefix):
    topic = f"{prefix}.pid"

    def keep(side):
        def probe():  # Kafka's first producer ids take their time
            answer = side.call("InitProducerId", 4, transactional_id=None)
            return answer if answer["error_code"] == 0 else None
        side.kept["pid"] = eventually(probe, "a producer id")["producer_id"]

    def with_sequence(sequence, epoch=0, count=1, topic=topic, **more):
        return lambda side: produce(topic, batch(
            [record(i) for i in range(count)], NOW, producer_id=side.kept["pid"], producer_epoch=epoch,
            sequence=sequence, **more))

    yield "keep", None, None, keep
    for name, fields in [
        ("first", with_sequence(0)), ("second", with_sequence(1)), ("duplicate", with_sequence(1)),
        ("duplicate of the first", with_sequence(0)), ("gap", with_sequence(5)), ("three", with_sequence(2, count=3)),
        ("part of a batch again", with_sequence(3)), ("more than the batch", with_sequence(2, count=4)),
        ("5", with_sequence(5)), ("6", with_sequence(6)), ("7", with_sequence(7)), ("8", with_sequence(8)),
        ("9", with_sequence(9)), ("10", with_sequence(10)), ("duplicate within five", with_sequence(6)),
        ("duplicate beyond five", with_sequence(5)), ("first again", with_sequence(0)),
        ("new epoch, wrong sequence", with_sequence(11, epoch=1)), ("new epoch", with_sequence(0, epoch=1)),
        ("old epoch", with_sequence(11, epoch=0)), ("epoch far ahead", with_sequence(0, epoch=9)),
        ("unknown producer begins late", with_sequence(50, topic=f"{prefix}.late")),
        ("and goes on", with_sequence(51, topic=f"{prefix}.late")),
        ("and repeats", with_sequence(0, topic=f"{prefix}.late")),
    ]:
        yield f"Produce sequence: {name}", "Produce", 9, fields
    yield "keep", None, None, keep
    yield "Produce sequence: at the end", "Produce", 9, with_sequence(2**31 - 2, count=2, topic=f"{prefix}.late")
    yield "Produce sequence: around the end", "Produce", 9, with_sequence(0, topic=f"{prefix}.late")
    yield "keep", None, None, keep
    yield "Produce sequence: across the end", "Produce", 9, with_sequence(2**31 - 1, count=3, topic=f"{prefix}.late")
    yield "Produce sequence: after it", "Produce", 9, with_sequence(2, topic=f"{prefix}.late")

    for name, fields in {
        "null": {"transactional_id": None}, "with producer": {"transactional_id": None, "producer_id": 5},
        "with both": {"transactional_id": None, "producer_id": 5, "producer_epoch": 1},
        "with epoch": {"transactional_id": None, "producer_epoch": 1}, "empty": {"transactional_id": ""},
        "timeout 0": {"transactional_id": None, "transaction_timeout_ms": 0},
    }.items():
        yield f"InitProducerId {name}", "InitProducerId", None, fields


def list_offsets(topic, timestamp, partition=0, epoch=-1, **more):
    return {"replica_id": -1, "topics": [{"name": topic, "partitions": [
        {"partition_index": partition, "timestamp": timestamp, "current_leader_epoch": epoch}]}], **more}


def reading_cases(prefix):
    time_topic, pid = f"{prefix}.time", f"{prefix}.pid"
    times = {str(t): t for t in (-1, -2, -3, -4, -5, -6, -7, 0)}
    for name, timestamp in {**times, "its time": NOW, "past its time": NOW + 1, "never": 1 << 62}.items():
        yield f"ListOffsets {name}", "ListOffsets", None, list_offsets(pid, timestamp)
    yield "ListOffsets of an empty partition", "ListOffsets", None, list_offsets(f"{prefix}.two", -3)
    yield "ListOffsets read committed", "ListOffsets", None, list_offsets(pid, -1, isolation_level=1)
    yield "ListOffsets isolation 7", "ListOffsets", 5, list_offsets(pid, -1, isolation_level=7)
    for epoch in (0, 1, 99):
        yield f"ListOffsets leader epoch {epoch}", "ListOffsets", 5, list_offsets(pid, -1, epoch=epoch)
    yield "ListOffsets unknown partition", "ListOffsets", None, list_offsets(pid, -1, partition=5)
    yield "ListOffsets unknown topic", "ListOffsets", None, list_offsets(f"{prefix}.missing", -1)
    twice = list_offsets(pid, -1)
    twice["topics"][0]["partitions"] *= 2
    yield "ListOffsets one partition twice", "ListOffsets", 5, twice
    yield "ListOffsets as a follower", "ListOffsets", 5, {**list_offsets(pid, -1), "replica_id": 3}
    yield "ListOffsets as a debugger", "ListOffsets", 5, {**list_offsets(pid, -1), "replica_id": -2}

    def epochs(wanted, current=-1, topic=pid, partition=0):
        return {"replica_id": -1, "topics": [{"topic": topic, "partitions": [
            {"partition": partition, "current_leader_epoch": current, "leader_epoch": wanted}]}]}

    for wanted in (0, 1, -1, -5):
        yield f"OffsetForLeaderEpoch {wanted}", "OffsetForLeaderEpoch", None, epochs(wanted)
    yield "OffsetForLeaderEpoch current 9", "OffsetForLeaderEpoch", None, epochs(0, 9)
    yield "OffsetForLeaderEpoch unknown topic", "OffsetForLeaderEpoch", None, epochs(0, topic=f"{prefix}.missing")
    yield "OffsetForLeaderEpoch unknown partition", "OffsetForLeaderEpoch", None, epochs(0, partition=4)
    yield "OffsetForLeaderEpoch empty", "OffsetForLeaderEpoch", None, epochs(0, topic=f"{prefix}.two")

    yield from fetch_cases(prefix)

    def delete(offset, topic=pid, partition=0):
        return {"topics": [{"name": topic, "partitions": [{"partition_index": partition, "offset": offset}]}],
                "timeout_ms": 5000}

    for offset in (0, 1_000_000, -2, 3, 1, -1):
        yield f"DeleteRecords {offset}", "DeleteRecords", 2, delete(offset)
    yield "DeleteRecords unknown topic", "DeleteRecords", None, delete(0, f"{prefix}.missing")
    yield "DeleteRecords unknown partition", "DeleteRecords", None, delete(0, partition=8)
    yield "DeleteRecords of a compacted topic", "DeleteRecords", None, delete(1, f"{prefix}.compact")
    for timestamp in (-1, -2, -3, -4, -5, 0):
        yield f"ListOffsets {timestamp} of what is left", "ListOffsets", 9, list_offsets(pid, timestamp)
    yield "ListOffsets append time", "ListOffsets", 5, list_offsets(time_topic, 0)


def fetch_cases(prefix):
    topic = f"{prefix}.pid"

    def fetch(offset=0, name=topic, partition=0, epoch=-1, size=1 << 20, session=0, session_epoch=-1, **more):
        def fields(side):
            wanted = {"partition": partition, "fetch_offset": offset, "partition_max_bytes": size,
                      "current_leader_epoch": epoch}
            by = {"topic": name, "topic_id": side.kept["ids"].get(name, "12345678-1234-1234-1234-123456789abc")}
            return {"max_bytes": 1 << 20, "session_id": session, "session_epoch": session_epoch,
                    "topics": [{**by, "partitions": [wanted]}], **more}
        return fields

    yield "Fetch all", "Fetch", None, fetch()
    for name, fields in {
        "past the end": fetch(1_000_000), "before the start": fetch(-1), "unknown topic": fetch(name="nope"),
        "unknown partition": fetch(partition=7), "leader epoch 0": fetch(epoch=0), "leader epoch 9": fetch(epoch=9),
        "at the end": fetch(12, max_wait_ms=1), "no bytes": fetch(size=0), "one byte": fetch(size=1),
        "no bytes in all": fetch(max_bytes=0), "read committed": fetch(isolation_level=1),
        "unknown session": fetch(session=99, session_epoch=5), "session without epoch": fetch(session=99),
        "bad session epoch": fetch(session_epoch=5), "final epoch": fetch(session_epoch=-1),
        "as a follower": fetch(replica_id=3), "min bytes too many": fetch(min_bytes=1 << 30, max_wait_ms=1),
        "nothing": lambda _side: {"topics": [], "max_bytes": 1000, "session_epoch": -1},
    }.items():
        yield f"Fetch {name}", "Fetch", [4, 7, 11, 12, 13], fields

    def keep_session(side):
        answer = side.call("Fetch", 13, **fetch(session_epoch=0)(side))
        side.kept["session"] = answer["session_id"]
        return {"error": answer["error_code"], "session": answer["session_id"] > 0}

    def in_session(epoch, **more):
        return lambda side: {"max_bytes": 1 << 20, "max_wait_ms": 1, "session_id": side.kept["session"],
                             "session_epoch": epoch, "topics": [], **more}

    def forget(side):
        return in_session(3, forgotten_topics_data=[{
            "topic": topic, "topic_id": side.kept["ids"][topic], "partitions": [0]}])(side)

    yield "keep", None, None, keep_session
    yield "Fetch in a session", "Fetch", 13, in_session(1)
    yield "Fetch in a session, moved on", "Fetch", 13, lambda side: {
        **fetch(12)(side), **{k: v for k, v in in_session(2)(side).items() if k != "topics"}}
    yield "Fetch in a session, one forgotten", "Fetch", 13, forget
    yield "Fetch in a session, epoch repeated", "Fetch", 13, in_session(3)
    yield "Fetch in a session, epoch skipped", "Fetch", 13, in_session(9)
    yield "Fetch closes the session", "Fetch", 13, in_session(-1)
    yield "Fetch in the closed session", "Fetch", 13, in_session(4)


def all_cases(prefix):
    yield from produce_cases(prefix)
    yield from sequence_cases(prefix)
    yield from reading_cases(prefix)
