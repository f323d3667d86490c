"""Drives a run: load, churn, kills of the broker, peace at the end; the checks are in truths.py.

The seed decides who does what in which order; how fast processes are decides the rest, so a seed repeats a kind of run
and not a run.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter

from churn.asking import ends_of, offsets_of
from churn.crowd import GROUPS, Crowd
from churn.reports import Report
from churn.truths import Truths
from harness import HERE, start_penstock
from members import described
from reading import make_topic

TOPIC = "churn"
# Far above what is needed: sessions of 6 s, rebalances of 15 s, and clients that look for their coordinator.
PEACE_S = 120
TICK_S = 0.1
OBSERVE_S = 3.0
# Seconds on average: between two things that happen to a place, and how long it stays vacant.
PLACE_EVERY_S = 30.0
VACANT_S = 5.0
FROZEN_S = (3.0, 14.0)
DOWN_S = (0.0, 3.0)


class Run:
    def __init__(self, options, directory, say=print):
        self.options, self.say, self.directory = options, say, directory
        self.random = random.Random(options.seed)
        self.truths = Truths(GROUPS, options.partitions)
        self.events = Counter()
        self.broker, self.bootstrap, _ = start_penstock(options.binary, options.shards, data=directory / "data")
        self.brokers = [self.broker]
        make_topic(self.bootstrap, TOPIC, options.partitions)
        self.crowd = Crowd(self.bootstrap, TOPIC, directory, options.members, self.truths)
        self.moved = {group: (0, time.monotonic(), 0.0) for group in GROUPS}
        self.observed = time.monotonic()
        self.producer = subprocess.Popen(list(map(str, [
            sys.executable, HERE / "churn" / "member.py", "producer", self.bootstrap, options.partitions, TOPIC,
            directory / "producer", options.rate])))
        self.produced = Report(directory / "producer", lambda kind, *numbers: self.truths.acknowledged(*numbers))

    # ---- the run --------------------------------------------------------------------------------------------------

    def run(self):
        try:
            for place in self.crowd.places:
                place.start()
            self.churn()
            self.settle()
        finally:
            self.crowd.kill()
            self.producer.kill()
            self.producer.wait()
            if sys.exc_info()[0]:
                self.broker.child.kill()
        self.restart(signal.SIGKILL)
        for group in GROUPS:
            self.observe(group)
            self.truths.check_contents(group)
        self.stop_broker(signal.SIGTERM)
        return self.truths

    def churn(self):
        started = time.monotonic()
        mean_s = PLACE_EVERY_S / len(self.crowd.places)
        next_action = started + 5
        next_kill = started + self.random.uniform(0.5, 1.5) * self.options.kill_every
        while (now := time.monotonic()) < started + self.options.seconds:
            self.look(now)
            if now >= next_action:
                next_action = now + self.random.expovariate(1 / mean_s)
                self.act(self.random.choice(self.crowd.places), now)
            if now >= next_kill:
                self.restart(self.random.choice([signal.SIGKILL] * 3 + [signal.SIGTERM]))
                next_kill = time.monotonic() + self.random.uniform(0.5, 1.5) * self.options.kill_every
            if now >= self.observed + OBSERVE_S:
                self.observe(self.random.choice(list(GROUPS)))
            time.sleep(TICK_S)

    def look(self, now):
        """Reads what was reported, and brings back whoever is due."""
        self.produced.read()
        self.crowd.read()
        self.crowd.reap(now)
        for group, (count, since, longest) in self.moved.items():
            records = self.truths.groups[group].records
            if records > count:
                self.moved[group] = (records, now, max(longest, now - since))
        for place in self.crowd.places:
            if place.frozen_until is not None and now >= place.frozen_until:
                place.thaw()
            if place.member is None and now >= place.vacant_until:
                self.events["join"] += 1
                place.start()
        if self.producer.poll() not in (None, 0):
            self.truths.violated("the producer failed")

    def act(self, place, now):
        if place.member is None or place.frozen_until is not None:
            return
        does = self.random.choices(["leave", "kill", "freeze", "replace"], [40, 35, 15, 10])[0]
        if does == "replace" and not place.instance:
            does = "leave"
        self.events[does] += 1
        vacant_s = self.random.expovariate(1 / VACANT_S)
        if does == "leave":
            place.end(signal.SIGTERM, now, vacant_s)
        elif does == "kill":
            place.end(signal.SIGKILL, now, vacant_s)
        elif does == "freeze":
            place.freeze(now + self.random.uniform(*FROZEN_S))
        else:
            place.replace(now)

    # ---- the broker -----------------------------------------------------------------------------------------------

    def stop_broker(self, number):
        if number == signal.SIGTERM:
            assert self.broker.stop() == 0, self.broker.tail()
        else:
            self.broker.child.kill()
            self.broker.child.wait()

    def restart(self, number):
        self.events["broker killed" if number == signal.SIGKILL else "broker stopped"] += 1
        self.stop_broker(number)
        time.sleep(self.random.uniform(*DOWN_S))
        self.broker, _, _ = start_penstock(
            self.options.binary, self.options.shards, data=self.directory / "data", listen=self.bootstrap)
        self.brokers.append(self.broker)
        for group in GROUPS:
            self.observe(group)

    def observe(self, group):
        """Compares the group's committed offsets with what was acknowledged; gives them and the ends of the log."""
        self.crowd.read()
        known = self.truths.known(group)
        offsets = offsets_of(self.bootstrap, group, TOPIC, self.options.partitions)
        ends = ends_of(self.bootstrap, TOPIC, self.options.partitions)
        self.truths.given_back(group, known, offsets, ends)
        self.observed = time.monotonic()
        return offsets, ends

    # ---- peace ----------------------------------------------------------------------------------------------------

    def settle(self):
        """No more faults: all places are taken; each group becomes stable, then reads to the end."""
        self.say("peace")
        started = time.monotonic()
        for place in self.crowd.places:
            place.thaw()
            place.vacant_until = 0
        self.await_rest(started, lambda why: "" if " has a lag of " in why or " was not given " in why else why)
        self.stable_s = time.monotonic() - started
        self.producer.send_signal(signal.SIGTERM)
        self.producer.wait(PEACE_S)
        self.await_rest(started, lambda why: why)
        self.settled_s = time.monotonic() - started

    def await_rest(self, started, counts):
        while True:
            self.look(time.monotonic())
            whys = [why for why in map(counts, map(self.why_not_at_rest, GROUPS)) if why]
            if not whys:
                return
            if time.monotonic() > started + PEACE_S:
                for why in whys:
                    self.truths.violated(f"after {PEACE_S} s of peace {why}")
                return
            time.sleep(0.5)

    def why_not_at_rest(self, group):
        state, owned = described(self, group)
        offsets, ends = self.observe(group)
        return self.truths.is_at_rest(group, state.name, owned, len(self.crowd.of(group)), offsets, ends)

    # ---- what came of it ------------------------------------------------------------------------------------------

    def lines(self):
        truths = self.truths
        yield f"{truths.acknowledged_count} records acknowledged; " + ", ".join(
            f"{count} x {name}" for name, count in sorted(self.events.items()))
        yield f"kafkajs gave up {self.crowd.gave_up} times" if self.crowd.gave_up else "no member gave up"
        for group, of in truths.groups.items():
            yield (f"{group}: {len(self.crowd.of(group))} members, {of.records} records consumed, {of.repeated} of them again, "
                   f"{of.commits} commits acknowledged, longest wait for a record {self.moved[group][2]:.1f} s")
        yield f"stable after {self.stable_s:.1f} s of peace, read to the end after {self.settled_s:.1f} s"
        yield from (f"VIOLATED: {what}" for what in truths.violations)
        yield f"{truths.violation_count} violations"

    def remove(self):
        for broker in self.brokers:
            broker.remove()
