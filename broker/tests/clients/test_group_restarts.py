"""The broker ends, killed or stopped, in the middle of a rebalance: members are parked in JoinGroup, or in SyncGroup.

Two raw members hold the rebalance where it is wanted: the first leads, and does not join anew, or does not assign; the
second is parked itself, which its connection shows. Real members wait beside them, and have to find together after.
"""

import select
import struct

import pytest
from kafka.protocol.consumer import (
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
)

from harness import Broker, eventually, start_penstock, unique
from members import Librdkafka, committed, described, settled
from reading import make_topic
from test_groups import COUNT, PARTITIONS, await_values, produce, values, wanted
from wire import Wire, make

SESSION_MS = 6_000
JOIN, SYNC, HEARTBEAT = 3, 2, 2
NOT_COORDINATOR = 16


class Raw:
    """A member that does nothing by itself."""

    def __init__(self, address, group, topic):
        self.wire = Wire(address)
        self.group = group
        self.member_id, self.generation = "", -1
        name = topic.encode()
        subscription = struct.pack(f">hih{len(name)}si", 0, 1, len(name), name, -1)
        self.protocols = [{"name": protocol, "metadata": subscription} for protocol in ("range", "roundrobin")]

    def ask_to_join(self):
        self.wire.send(make(
            JoinGroupRequest, JOIN, group_id=self.group, session_timeout_ms=SESSION_MS, rebalance_timeout_ms=60_000,
            member_id=self.member_id, protocol_type="consumer", protocols=self.protocols))

    def joined(self):
        answer = self.wire.receive(JoinGroupResponse, JOIN)
        assert answer["error_code"] == 0, answer
        self.member_id, self.generation = answer["member_id"], answer["generation_id"]
        return answer

    def ask_to_sync(self, assignments=()):
        self.wire.send(make(
            SyncGroupRequest, SYNC, group_id=self.group, generation_id=self.generation, member_id=self.member_id,
            assignments=[{"member_id": member, "assignment": data} for member, data in assignments]))

    def synced(self):
        answer = self.wire.receive(SyncGroupResponse, SYNC)
        assert answer["error_code"] == 0, answer

    def heartbeat(self):
        self.wire.call(make(HeartbeatRequest, HEARTBEAT, group_id=self.group, generation_id=self.generation,
                            member_id=self.member_id), HeartbeatResponse)

    def is_parked(self):
        return not select.select([self.wire.socket], [], [], 0)[0]


def park(broker, group, topic, phase, crowd):
    """A leader that holds the group in the phase, and another raw member that is parked in it."""
    leader, other = (Raw(broker.bootstrap, group, topic) for _ in range(2))
    leader.ask_to_join()
    assert leader.joined()["leader"] == leader.member_id
    leader.ask_to_sync([(leader.member_id, b"")])
    leader.synced()
    other.ask_to_join()
    crowd += [Librdkafka(broker, group, topic, **{"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 1_000})
              for _ in range(2)]

    def reached(wanted):
        leader.heartbeat()
        state, owned = described(broker, group)
        return state.name.startswith(wanted) and len(owned) == 4

    eventually(lambda: reached("PREPARING_REBALANC"), "all but the leader wait in JoinGroup")
    assert other.is_parked()
    if phase == "sync":
        leader.ask_to_join()
        assert leader.joined()["leader"] == leader.member_id
        other.joined()
        other.ask_to_sync()
        eventually(lambda: reached("COMPLETING_REBALANC"), "all but the leader wait in SyncGroup")
        assert other.is_parked()
    return leader, other


@pytest.mark.parametrize("ends", ("killed", "stopped"))
@pytest.mark.parametrize("phase", ("join", "sync"))
def test_the_broker_ends_in_the_middle_of_a_rebalance(binary, phase, ends):
    settings = ("group.initial.rebalance.delay.ms=0",)
    process, address, _ = start_penstock(binary, 2, settings)
    servers, crowd = [process], []
    broker = Broker(address, is_kafka=False, no_auto=None)
    topic, group = unique("groups-middle"), unique("middle")
    try:
        make_topic(address, topic, partitions=PARTITIONS)
        produce(broker, topic, 0, COUNT, False)
        first = Librdkafka(broker, group, topic)
        await_values([first], wanted(0, COUNT))
        first.leave()
        before = committed(address, group, topic, PARTITIONS)
        assert sum(before) == COUNT
        _, other = park(broker, group, topic, phase, crowd)
        if ends == "killed":
            process.child.kill()
            process.child.wait()
        else:
            assert process.stop() == 0, process.tail()
            check_told(other)
        servers.append(start_penstock(binary, 2, settings, data=f"{process.dir}/data", listen=address)[0])
        assert committed(address, group, topic, PARTITIONS) == before
        settled(broker, group, 2, PARTITIONS)
        produce(broker, topic, COUNT, COUNT, False)
        eventually(lambda: values(crowd) >= wanted(COUNT, COUNT), "the members go on")
        assert set(values(crowd)) == set(wanted(COUNT, COUNT)), "from where the group was"
        while crowd:
            crowd.pop().leave()
        assert sum(committed(address, group, topic, PARTITIONS)) == 2 * COUNT
    finally:
        for member in crowd:
            member.leave()
        for server in servers:
            if server.child.poll() is None:
                assert server.stop() == 0, server.tail()
    for server in servers:
        server.remove()


def check_told(parked):
    """A parked request is answered by an orderly stop, or its connection ends."""
    try:
        body = parked.wire.receive_body()
    except ConnectionError:
        return
    # Correlation id and, in both answers at these versions, the time of throttling come first.
    assert struct.unpack_from(">h", body, 8) == (NOT_COORDINATOR,)
