"""kcat 1.7.1 (librdkafka 2.0.2, three years old): the strictest reader of what a broker advertises."""

import json
import subprocess

import pytest

from harness import BASE_MS, DEADLINE_S, assert_same, key_of, payload, stream, unique
from reading import make_topic, read_all
from test_confluent import produce
from wire import packed_codecs, stored_batches

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def kcat(address, *args, stdin=b"", ok=True):
    done = subprocess.run(["kcat", "-b", address, *args], input=stdin, capture_output=True, timeout=DEADLINE_S)
    if ok:
        assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done


def lines(tag, partition):
    """What kcat can carry of a stream: lines of key and value."""
    wanted = [i for i in range(partition, 300, 2) if payload(tag, i)]
    return b"".join((key_of(i) or b"") + b"|" + payload(tag, i) + b"\n" for i in wanted), wanted


def consume(broker, topic, *args):
    """Reads to the end of the partitions, as JSON lines."""
    out = kcat(broker.bootstrap, "-q", "-C", "-t", topic, "-e", "-J", *args).stdout
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip(broker, codec):
    topic = unique(f"kcat-{codec}")
    make_topic(broker.bootstrap, topic)
    for partition in (0, 1):
        text, _ = lines(codec, partition)
        kcat(broker.bootstrap, "-P", "-t", topic, "-p", str(partition), "-K", "|", "-Z", "-z", codec,
             "-H", "h=1", "-X", "linger.ms=100", stdin=text)
    assert packed_codecs(broker.bootstrap, topic) == {codec}
    by_other = read_all(broker.bootstrap, topic)
    for partition in (0, 1):
        _, wanted = lines(codec, partition)
        expected = [(key_of(i), payload(codec, i)) for i in wanted]
        theirs = [(r.key, r.value) for r in by_other if r.partition == partition]
        assert theirs == expected
        ours = consume(broker, topic, "-p", str(partition), "-o", "beginning")
        assert [(m["key"] and m["key"].encode(), m["payload"].encode()) for m in ours] == expected
        assert [m["offset"] for m in ours] == list(range(len(expected)))
        assert all(m["headers"] == ["h", "1"] for m in ours)


def test_idempotent(broker):
    topic = unique("kcat-idempotent")
    make_topic(broker.bootstrap, topic, 1)
    text = b"".join(b"%d\n" % i for i in range(1000))
    kcat(broker.bootstrap, "-P", "-t", topic, "-p", "0", "-X", "enable.idempotence=true",
         "-X", "batch.num.messages=100", stdin=text)
    assert [r.value for r in read_all(broker.bootstrap, topic)] == text.split()
    batches = stored_batches(broker.bootstrap, topic, 0)
    assert batches[0].producer_id >= 0 and [b.base_sequence for b in batches] == [b.base_offset for b in batches]


def test_seek_by_time(broker):
    topic = unique("kcat-time")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "k", **{"batch.num.messages": 7}) == []
    got = consume(broker, topic, "-p", "1", "-o", f"s@{BASE_MS + 100_500}", "-o", f"e@{BASE_MS + 199_500}")
    assert [(m["offset"], m["ts"]) for m in got] == [(i // 2, BASE_MS + i * 1000) for i in range(101, 200, 2)]
    answer = kcat(broker.bootstrap, "-Q", "-t", f"{topic}:0:{BASE_MS + 100_500}").stdout.decode()
    assert answer.strip() == f"{topic} [0] offset 51"


def test_offsets_and_tail(broker):
    topic = unique("kcat-tail")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "k") == []
    assert [m["offset"] for m in consume(broker, topic, "-p", "0", "-o", "-3")] == [147, 148, 149]
    assert [m["offset"] for m in consume(broker, topic, "-p", "0", "-o", "140", "-c", "2")] == [140, 141]
    assert consume(broker, topic, "-p", "0", "-o", "end") == []


def test_metadata(broker):
    topic = unique("kcat-meta")
    make_topic(broker.bootstrap, topic, 3)
    listed = json.loads(kcat(broker.bootstrap, "-L", "-J", "-t", topic).stdout)
    assert [p["partition"] for p in listed["topics"][0]["partitions"]] == [0, 1, 2]
    assert [b["name"] for b in listed["brokers"]] == [broker.bootstrap]


def test_auto_creation(broker):
    topic = unique("kcat-auto")
    kcat(broker.bootstrap, "-P", "-t", topic, stdin=b"one\ntwo\n")
    assert [m["payload"] for m in consume(broker, topic, "-o", "beginning")] == ["one", "two"]


def test_auto_creation_off(broker):
    if broker.no_auto is None:
        pytest.skip("needs a broker started with auto.create.topics.enable=false")
    topic = unique("kcat-no-auto")
    done = kcat(broker.no_auto, "-P", "-t", topic, "-X", "topic.metadata.propagation.max.ms=500", stdin=b"one\n",
                ok=False)
    assert done.returncode != 0 or b"Unknown topic" in done.stderr
    listed = json.loads(kcat(broker.no_auto, "-L", "-J").stdout)
    assert topic not in [t["topic"] for t in listed["topics"]]


def test_unknown_topic(broker):
    done = kcat(broker.bootstrap, "-C", "-t", unique("kcat-missing"), "-p", "0", "-o", "0", "-e",
                "-X", "allow.auto.create.topics=false", "-X", "topic.metadata.propagation.max.ms=500", ok=False)
    assert b"nknown topic" in done.stderr


def test_message_too_large(broker):
    topic = unique("kcat-large")
    make_topic(broker.bootstrap, topic, 1, max_message_bytes="5000")
    done = kcat(broker.bootstrap, "-P", "-t", topic, stdin=b"x" * 6000 + b"\n", ok=False)
    assert b"Message size too large" in done.stderr
    assert read_all(broker.bootstrap, topic) == []


def test_reads_what_others_wrote(broker):
    topic = unique("kcat-reads")
    make_topic(broker.bootstrap, topic)
    assert produce(broker, topic, "r", **{"compression.type": "zstd"}) == []
    want = stream("r")
    for partition in (0, 1):
        got = consume(broker, topic, "-p", str(partition), "-o", "beginning")
        assert [(m["offset"], m["ts"], m["key"] or None) for m in got] == [
            (r.offset, r.timestamp, r.key and r.key.decode()) for r in want if r.partition == partition]
    assert_same(read_all(broker.bootstrap, topic), want)
