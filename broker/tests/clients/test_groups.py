"""Consumer groups as the introductions to Kafka tell of them, with three client libraries."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer

from harness import DEADLINE_S, eventually, start_penstock, unique
from members import MEMBERS, Librdkafka, committed, described, settled
from reading import make_topic

PARTITIONS = 11
COUNT = 220


def produce(broker, topic, first, count, keyed):
    """Sends records `first`...; without keys they go round the partitions."""
    failed = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "enable.idempotence": True})
    for i in range(first, first + count):
        where = {"key": f"k{i % 17}"} if keyed else {"partition": i % PARTITIONS}
        producer.produce(topic, f"v{i}", on_delivery=lambda e, _m: failed.append(e) if e else None, **where)
    assert producer.flush(DEADLINE_S) == 0 and failed == []


def values(members):
    return Counter(got.value for member in members for got in member.got)


def wanted(first, count):
    return Counter(f"v{i}" for i in range(first, first + count))


def await_values(members, want):
    eventually(lambda: sum(len(member.got) for member in members) >= sum(want.values()), "the group gets the records")
    assert values(members) == want, "each record once in the group"


@pytest.fixture(scope="session")
def stories(broker):
    """The same story with each client, with and without keys, side by side: most of each is waiting."""
    with ThreadPoolExecutor(2 * len(MEMBERS)) as pool:
        yield {(client, keyed): pool.submit(nerds_and_hairy, broker, client, keyed)
               for client in MEMBERS for keyed in (False, True)}


@pytest.mark.parametrize("client", MEMBERS)
@pytest.mark.parametrize("keyed", (False, True), ids=("round", "keyed"))
def test_nerds_and_hairy(stories, client, keyed):
    stories[client, keyed].result()


def nerds_and_hairy(broker, client, keyed):
    topic, nerds, hairy = unique("groups"), unique("Nerds"), unique("Hairy")
    make_topic(broker.bootstrap, topic, partitions=PARTITIONS)
    join = MEMBERS[client]
    crowd = [join(broker, nerds, topic) for _ in range(3)]
    single = [join(broker, hairy, topic)]
    try:
        owned = settled(broker, nerds, 3, PARTITIONS)
        assert sorted(map(len, owned.values())) == [3, 4, 4], "shared out evenly"
        settled(broker, hairy, 1, PARTITIONS)
        produce(broker, topic, 0, COUNT, keyed)
        for members in (crowd, single):
            await_values(members, wanted(0, COUNT))
        assert all(member.got for member in crowd), "each member has its part"
        if keyed:
            for members in (crowd, single):
                check_keys(members)
        # One leaves: its partitions go to the others, who begin where it stopped.
        crowd.pop().leave()
        settled(broker, nerds, 2, PARTITIONS)
        for member in crowd:
            member.got.clear()
        produce(broker, topic, COUNT, COUNT, keyed)
        await_values(crowd, wanted(COUNT, COUNT))
        await_values(single, wanted(0, 2 * COUNT))
    finally:
        for member in crowd + single:
            member.leave()
    state, owned = described(broker, nerds)
    assert state.name == "EMPTY" and owned == {}


def check_keys(members):
    holders, order = defaultdict(set), defaultdict(list)
    for number, member in enumerate(members):
        for got in member.got:
            holders[got.key].add(number)
            order[got.key].append(int(got.value[1:]))
    assert len(order) == 17
    assert all(len(of) == 1 for of in holders.values()), "all of a key meet one consumer"
    assert all(seen == sorted(seen) for seen in order.values()), "in order"


def test_cooperative_members(broker):
    topic, group = unique("groups-cooperative"), unique("cooperative")
    make_topic(broker.bootstrap, topic, partitions=PARTITIONS)
    settings = {"partition.assignment.strategy": "cooperative-sticky"}
    members = [Librdkafka(broker, group, topic, **settings)]
    try:
        before = settled(broker, group, 1, PARTITIONS)
        members.append(Librdkafka(broker, group, topic, **settings))
        after = settled(broker, group, 2, PARTITIONS)
        (stayed, had), = before.items()
        assert set(after[stayed]) < set(had), "who was there keeps a part of what it had"
        produce(broker, topic, 0, COUNT, False)
        await_values(members, wanted(0, COUNT))
    finally:
        for member in members:
            member.leave()


def test_static_members_come_back_to_their_partitions(broker):
    topic, group = unique("groups-static"), unique("static")
    make_topic(broker.bootstrap, topic, partitions=PARTITIONS)

    def join(name):
        return Librdkafka(broker, group, topic, **{"group.instance.id": name})

    members = {name: join(name) for name in ("a", "b")}
    try:
        settled(broker, group, 2, PARTITIONS)
        produce(broker, topic, 0, COUNT, False)
        await_values(members.values(), wanted(0, COUNT))
        had = {got.partition for got in members["a"].got}
        # A static member that goes does not leave: the other keeps just its own until it is back.
        members["a"].leave()
        members["a"] = join("a")
        settled(broker, group, 2, PARTITIONS)
        produce(broker, topic, COUNT, COUNT, False)
        eventually(lambda: values(members.values()) >= wanted(COUNT, COUNT), "the group gets the records")
        assert {got.partition for got in members["a"].got} == had
    finally:
        for member in members.values():
            member.leave()


@pytest.mark.parametrize("shards", ((1, 1), (2, 4), (4, 1)), ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def test_groups_outlive_the_broker(binary, shards):
    """Members go on where they were when the broker comes back, stopped or killed, with other numbers of shards."""
    process, address, _ = start_penstock(binary, shards[0])
    second = None
    try:
        broker = type("At", (), {"bootstrap": address})
        topic, group = unique("groups-restart"), unique("restart")
        make_topic(address, topic, partitions=PARTITIONS)
        member = Librdkafka(broker, group, topic)
        settled(broker, group, 1, PARTITIONS)
        produce(broker, topic, 0, COUNT, False)
        await_values([member], wanted(0, COUNT))
        member.leave()
        before = committed(address, group, topic, PARTITIONS)
        assert sum(before) == COUNT
        returning = Librdkafka(broker, group, topic)
        settled(broker, group, 1, PARTITIONS)
        process.child.kill()
        process.child.wait()
        second, _, _ = start_penstock(binary, shards[1], data=f"{process.dir}/data", listen=address)
        assert committed(address, group, topic, PARTITIONS) == before
        produce(broker, topic, COUNT, COUNT, False)
        eventually(lambda: values([returning]) >= wanted(COUNT, COUNT), "the member goes on")
        returning.leave()
    finally:
        for server in (process, second):
            if server and server.child.poll() is None:
                assert server.stop() == 0
    process.remove()
    second.remove()
