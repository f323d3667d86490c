"""Members of consumer groups: consumers of three client libraries, each of which says what it was given.

Each member remembers the records that reached it as (partition, offset, key, value). What the coordinator thinks of a
group is asked through librdkafka's admin client, whichever library the members are of.
"""

import os
import subprocess
import threading
from collections import namedtuple

from confluent_kafka import Consumer, ConsumerGroupState, TopicPartition
from confluent_kafka.admin import AdminClient

from harness import CACHE, DEADLINE_S, HERE, eventually

Got = namedtuple("Got", "partition offset key value")


class Librdkafka:
    """A member in a thread of its own."""

    def __init__(self, broker, group, topic, **settings):
        self.got = []
        self._stop = threading.Event()
        self._consumer = Consumer({
            "bootstrap.servers": broker.bootstrap, "group.id": group, "auto.offset.reset": "earliest", **settings})
        self._consumer.subscribe([topic])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and not message.error():
                key, value = message.key(), message.value()
                self.got.append(Got(message.partition(), message.offset(), key and key.decode(), value and value.decode()))
        self._consumer.close()

    def leave(self):
        """Commits what it was given and leaves the group."""
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "a member does not leave"


class Process:
    """A member in a process that prints partition, offset, key and value, with tabs between, for each record."""

    def __init__(self, command, **environment):
        self.got = []
        self._child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self._said = []
        self._readers = [threading.Thread(target=self._read, daemon=True),
                         threading.Thread(target=lambda: self._said.extend(self._child.stderr), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self._child.stdout:
            words = line.rstrip("\n").split("\t")
            if len(words) == 4:
                partition, offset = (int(word.split(":")[-1]) for word in words[:2])
                self.got.append(Got(partition, offset, None if words[2] == "null" else words[2], words[3]))

    def leave(self):
        self._child.terminate()
        try:
            self._child.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            raise AssertionError("a member does not leave:\n" + "".join(self._said[-20:])) from None


def java(broker, group, topic):
    """Kafka's console consumer."""
    from test_java_tools import TOOLS, java as command
    print_all = [f"print.{part}=true" for part in ("partition", "offset", "key")]
    return Process([
        *command(TOOLS["console-consumer"]), "--bootstrap-server", broker.bootstrap, "--topic", topic, "--group", group,
        "--from-beginning", *(word for part in print_all for word in ("--formatter-property", part))])


def kafkajs(broker, group, topic):
    modules = str(CACHE / "kafkajs" / "node_modules")
    return Process(["node", HERE / "kafkajs" / "member.js", broker.bootstrap, group, topic], NODE_PATH=modules)


MEMBERS = {"librdkafka": Librdkafka, "java": java, "kafkajs": kafkajs}


def described(broker, group):
    """State of the group and the partitions of each member, as the coordinator tells."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    found = admin.describe_consumer_groups([group])[group].result(DEADLINE_S)
    owned = {m.member_id: sorted(p.partition for p in m.assignment.topic_partitions) for m in found.members}
    return found.state, owned


def settled(broker, group, members, partitions):
    """Waits until the group is stable with so many members, which own all partitions; gives what each owns."""

    def probe():
        state, owned = described(broker, group)
        everything = sorted(p for each in owned.values() for p in each)
        whole = state == ConsumerGroupState.STABLE and len(owned) == members and everything == list(range(partitions))
        return owned if whole else None

    return eventually(probe, f"group {group} is stable with {members} members")


def committed(address, group, topic, partitions):
    """The group's committed offsets; -1001 where there is none."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": group})
    try:
        asked = [TopicPartition(topic, p) for p in range(partitions)]
        return [found.offset for found in consumer.committed(asked, timeout=DEADLINE_S)]
    finally:
        consumer.close()
