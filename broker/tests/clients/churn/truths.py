"""What must be true of groups whatever happens to their members and to the broker. Knows no client and no clock.

It is told what was seen, and keeps a list of what must not have been seen:
- every record that was acknowledged to the producer is consumed by each group, at its offset and with its value;
- an offset that the broker gives back for a group is never below one whose commit a member saw acknowledged before the
  question, never below one that was given back before, and never past the end of the log;
- a group that is left in peace becomes stable, its members own each partition once, and its lag goes to 0.
"""

from array import array

# Violations beyond these are counted and not kept.
KEPT = 20


class Log:
    """The numbers of records by offset; -1 where none is known."""

    def __init__(self):
        self.numbers = array("q")

    def put(self, offset, number):
        """The number that was there: -1 for none."""
        if offset >= len(self.numbers):
            self.numbers.extend([-1] * (offset + 1 - len(self.numbers)))
        before = self.numbers[offset]
        self.numbers[offset] = number
        return before

    def get(self, offset):
        return self.numbers[offset] if offset < len(self.numbers) else -1


class Group:
    def __init__(self, partitions):
        self.consumed = [Log() for _ in range(partitions)]
        self.committed = [0] * partitions  # the highest offset whose commit a member saw acknowledged
        self.shown = [0] * partitions  # the highest offset that the broker has given back
        self.given_up = [0] * partitions  # the highest offset that a member did not commit for a rebalance
        self.records = self.repeated = self.commits = 0


class Truths:
    def __init__(self, groups, partitions):
        self.produced = [Log() for _ in range(partitions)]
        self.groups = {name: Group(partitions) for name in groups}
        self.acknowledged_count = 0
        self.violations = []
        self.violation_count = 0

    def violated(self, what):
        self.violation_count += 1
        if self.violation_count <= KEPT:
            self.violations.append(what)

    # ---- what the producer and the members say --------------------------------------------------------------------

    def acknowledged(self, partition, offset, number):
        before = self.produced[partition].put(offset, number)
        if before != -1:
            self.violated(f"records {before} and {number} were both acknowledged at {partition}@{offset}")
        self.acknowledged_count += 1

    def consumed(self, group, partition, offset, number):
        of = self.groups[group]
        before = of.consumed[partition].put(offset, number)
        of.records += 1
        of.repeated += before != -1
        if before not in (-1, number):
            self.violated(f"{group} was given records {before} and {number} at {partition}@{offset}")

    def committed(self, group, partition, offset):
        of = self.groups[group]
        of.commits += 1
        of.committed[partition] = max(of.committed[partition], offset)

    def given_up(self, group, partition, offset):
        of = self.groups[group]
        of.given_up[partition] = max(of.given_up[partition], offset)

    # ---- what the broker says -------------------------------------------------------------------------------------

    def known(self, group):
        """What an answer must not fall below, if the question is asked from now on."""
        of = self.groups[group]
        return [max(pair) for pair in zip(of.committed, of.shown)]

    def given_back(self, group, known, offsets, ends):
        """The offsets of a group as the broker gave them back (0 where there is none), asked after `known` was taken,
        and the ends of the log, asked after that."""
        of = self.groups[group]
        for partition, (least, offset, end) in enumerate(zip(known, offsets, ends)):
            if offset < least:
                self.violated(f"{group} has {offset} committed in partition {partition}: {least} is lost")
            if offset > end:
                self.violated(f"{group} has {offset} committed in partition {partition}, which ends at {end}")
            of.shown[partition] = max(of.shown[partition], offset)

    # ---- at rest --------------------------------------------------------------------------------------------------

    def is_at_rest(self, group, state, owned, members, offsets, ends):
        """Why the group is not at rest, or "". `owned`: lists of partitions, by member."""
        if state != "STABLE":
            return f"{group} is {state}"
        if len(owned) != members:
            return f"{group} has {len(owned)} members instead of {members}"
        if sorted(p for each in owned.values() for p in each) != list(range(len(self.produced))):
            return f"{group} does not own each partition once"
        # Who gave up a commit for a rebalance commits again with the next record, and there may be none.
        given_up = self.groups[group].given_up
        lag = sum(end - offset for offset, end, up in zip(offsets, ends, given_up) if up < end)
        if lag != 0:
            return f"{group} has a lag of {lag}"
        return self.missing(group)

    def missing(self, group):
        """Acknowledged records that the group was not given, in words, or ""."""
        found = count = 0
        for partition, log in enumerate(self.produced):
            consumed = self.groups[group].consumed[partition]
            if consumed.numbers[:len(log.numbers)] == log.numbers:
                continue
            for offset, number in enumerate(log.numbers):
                if number != -1 and consumed.get(offset) == -1:
                    count += 1
                    found = found or f"{partition}@{offset}"
        return f"{group} was not given {count} acknowledged records, the first at {found}" if count else ""

    def check_contents(self, group):
        """Each record as it was acknowledged, and none that was never sent."""
        for partition, log in enumerate(self.produced):
            for offset, number in enumerate(self.groups[group].consumed[partition].numbers):
                if number != -1 and log.get(offset) != number:
                    self.violated(f"{group} was given {number} at {partition}@{offset}, where {log.get(offset)} was written")
