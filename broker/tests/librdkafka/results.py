"""What tests are expected to do, and the tables of what they did."""

import collections
import datetime
import re

Expected = collections.namedtuple("Expected", "result kafka seconds group subtests remark")
UNKNOWN = Expected("-", "-", 60.0, "full", (), "")

HEAD = """\
# librdkafka's own tests

librdkafka 2.15.1, one process per test, one broker over plain TCP with 4 default partitions. Written by
`run --record`; what the words mean stands in `expected.txt`. Seconds; in parentheses how many subtests skipped
themselves. Tests that nobody has run here say -.

| Test | Apache Kafka 4.3.1 | Penstock, 1 shard | Date | Penstock, 2 shards | Date | Remark |
|---|---|---|---|---|---|---|
"""
# The columns of the results by number of shards.
COLUMN = {1: 2, 2: 4}


def read_expected(path):
    rows = (line.split(None, 6) for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return {row[0]: Expected(row[1], row[2], float(row[3]), row[4], () if row[5] == "*" else tuple(row[5].split("|")),
                             row[6] if len(row) > 6 else "") for row in rows}


def line(test, want, outcome):
    verdict = "" if want.result in (outcome.result, "-") else f" (expected: {want.result})"
    skipped = f", {outcome.skipped} subtests skipped" if outcome.skipped else ""
    why = f"  {outcome.why}" if outcome.why else ""
    return f"{test}  {outcome.result}{verdict}  {outcome.seconds:6.1f} s  Kafka {want.seconds:5.1f} s{skipped}{why}"


def closing(outcomes, complaints, seconds):
    """A line as pytest's, which the runner of all tests counts."""
    count = collections.Counter(outcome.result for outcome in outcomes.values())
    return f"=== {count['pass']} passed, {len(complaints)} failed, {count['skip']} skipped in {seconds:.0f}s ==="


def record(path, expected, shards, outcomes):
    """Writes the table at `path`, with the results of this run in place of older ones of the same tests."""
    today = datetime.date.today().isoformat()
    rows = {row[0]: row for row in _rows(path)}
    for test in sorted({*rows, *expected, *outcomes}):
        want = expected.get(test, UNKNOWN)
        kafka = "-" if want.kafka == "-" else f"{want.kafka} {want.seconds:.1f}"
        row = rows.setdefault(test, [test, kafka, "-", "", "-", "", ""])
        row[1], row[6] = kafka, want.remark
        if test in outcomes:
            row[COLUMN[shards]:COLUMN[shards] + 2] = [_cell(outcomes[test]), today]
    body = "".join(f"| {' | '.join(rows[test])} |\n" for test in sorted(rows))
    path.write_text(HEAD + body)


def _rows(path):
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in lines if re.match(r"\| \d{4} ", row)]


def _cell(outcome):
    skipped = f" ({outcome.skipped})" if outcome.skipped else ""
    return f"{outcome.result} {outcome.seconds:.1f}{skipped}"
