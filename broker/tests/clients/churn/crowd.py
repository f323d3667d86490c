"""The members: for each a place in a group, in which a process runs, leaves, freezes, dies and is replaced."""

import os
import signal
import subprocess
import sys

from churn.member import FENCED, SESSION_MS
from churn.reports import Report
from harness import CACHE, HERE

# A member has to be gone so long after it was asked to leave; the broker may be down in between.
LEAVE_S = 90
# What is left of two processes with one instance id after this time is one.
RIVAL_S = 40
# How kafkajs ends where it gives up, now and then, when it was put out of its group or could not connect at first.
GAVE_UP = 4
# How a member ends that was fenced: Java's tool by itself, ours with a status of their own.
FENCED_STATUSES = {FENCED, 0, 1}
EAGER, COOPERATIVE = "range", "cooperative-sticky"
JAVA_ASSIGNORS = {
    EAGER: "org.apache.kafka.clients.consumer.RangeAssignor",
    COOPERATIVE: "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
}
# By group: its share of all members, how it assigns, and the clients of its places, round and round. A client with a
# star is a static member. Groups of their own where clients agree on no assignor, or not on what they tell it.
GROUPS = {
    "eager": (10, EAGER, ("librdkafka", "kafka-python", "librdkafka*", "java", "kafka-python*", "librdkafka")),
    "cooperative": (7, COOPERATIVE, ("librdkafka", "librdkafka*", "librdkafka")),
    "java": (3, COOPERATIVE, ("java", "java*", "java")),
    "kafkajs": (4, None, ("kafkajs",)),
}


class Member:
    """One process and what it reports."""

    def __init__(self, command, report, take):
        self.name = report.name
        self.reader = Report(report, take)
        self.allowed = {GAVE_UP} if command[0] == "node" else set()  # the exit statuses that are no surprise
        self.until = None  # when it has to be gone
        self.is_rival = False  # of another process with its instance id: when it came back last decides which one goes
        said = report.with_suffix(".said")
        with open(said, "ab") as errors, open(report if command[0] == "java" else said, "ab") as out:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=out, stderr=errors, start_new_session=True,
                env={**os.environ, "NODE_PATH": str(CACHE / "kafkajs" / "node_modules")})

    def send(self, number, allowed, until):
        self.allowed, self.until = self.allowed | allowed, until
        self.process.send_signal(number)


class Place:
    def __init__(self, crowd, group, client, number, assignor):
        self.group, self.number, self.assignor = group, number, assignor
        self.client = client.rstrip("*")
        self.instance = f"{group}-{number}" if client.endswith("*") else ""
        self.crowd = crowd
        self.member = None
        self.frozen_until = None
        self.vacant_until = 0.0

    def command(self, report):
        crowd, group = self.crowd, self.group
        if self.client == "kafkajs":
            return ["node", HERE / "kafkajs" / "churn.js", crowd.bootstrap, group, crowd.topic, report]
        if self.client == "java":
            from test_java_groups import TOOLS
            from test_java_tools import java
            return [*java(TOOLS["verifiable-consumer"]), "--bootstrap-server", crowd.bootstrap, "--topic", crowd.topic,
                    "--group-id", group, "--session-timeout", SESSION_MS, "--verbose", "--assignment-strategy",
                    JAVA_ASSIGNORS[self.assignor], "--command-config", crowd.java_config,
                    *(["--group-instance-id", self.instance] if self.instance else [])]
        return [sys.executable, HERE / "churn" / "member.py", self.client, crowd.bootstrap, group, crowd.topic, report,
                self.instance, self.assignor]

    def start(self):
        self.member = self.crowd.start(self)

    def end(self, number, now, vacant_s):
        """Asks the member to leave, or kills it; the place stays vacant for a while."""
        self.thaw()
        # -SIGTERM: it had not got as far as to take notice.
        self.member.send(number, {0, 143, FENCED, -number}, now + LEAVE_S)
        self.member = None
        self.vacant_until = now + vacant_s

    def replace(self, now):
        """Another process takes the instance id while this one still runs. Whoever joins last has it, so either may go."""
        old = self.member
        self.start()
        for member in (old, self.member):
            member.allowed |= FENCED_STATUSES
        old.is_rival, old.until = True, now + RIVAL_S

    def freeze(self, until):
        self.member.process.send_signal(signal.SIGSTOP)
        self.frozen_until = until

    def thaw(self):
        if self.frozen_until is not None and self.member:
            self.member.process.send_signal(signal.SIGCONT)
        self.frozen_until = None


class Crowd:
    def __init__(self, bootstrap, topic, directory, members, truths):
        self.bootstrap, self.topic, self.directory, self.truths = bootstrap, topic, directory, truths
        self.java_config = directory / "java.properties"
        self.java_config.write_text("max.poll.interval.ms=15000\nheartbeat.interval.ms=1000\nfetch.max.wait.ms=100\n"
                                    "reconnect.backoff.max.ms=500\n")
        self.members, self.started, self.gave_up = [], 0, 0
        self.places = [
            Place(self, group, clients[number % len(clients)], number, assignor)
            for group, (share, assignor, clients) in GROUPS.items()
            for number in range(max(2, round(share * members / sum(of for of, _, _ in GROUPS.values()))))
        ]

    def of(self, group):
        return [place for place in self.places if place.group == group]

    def start(self, place):
        path = self.directory / f"{place.group}-{place.number}-{self.started}"
        self.started += 1
        take = {"r": self.truths.consumed, "c": self.truths.committed, "u": self.truths.given_up}
        member = Member(place.command(path), path, lambda kind, *numbers: take[kind](place.group, *numbers))
        self.members.append(member)
        return member

    def read(self):
        for member in self.members:
            member.reader.read()

    def reap(self, now):
        """Members that end by themselves, or do not end when asked to, are violations."""
        for member in list(self.members):
            status = member.process.poll()
            if status is None and (member.until is None or now <= member.until):
                continue
            if status is None:
                if not member.is_rival:
                    self.truths.violated(f"{member.name} does not leave within {LEAVE_S} s")
                member.process.kill()
                member.process.wait()
            elif status not in member.allowed:
                self.truths.violated(f"{member.name} ended by itself with status {status}")
            elif status == GAVE_UP:
                self.gave_up += 1
            member.reader.read()
            self.members.remove(member)
            for place in self.places:
                if place.member is member:
                    place.member, place.frozen_until, place.vacant_until = None, None, now

    def kill(self):
        for member in self.members:
            member.process.kill()
            member.process.wait()
        self.members = []
