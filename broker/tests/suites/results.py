"""What tests are expected to do, and the tables of what they did."""

import collections
import datetime
import re

Expected = collections.namedtuple("Expected", "result kafka seconds group subtests remark")
UNKNOWN = Expected("-", "-", 60.0, "full", (), "")
Outcome = collections.namedtuple("Outcome", "result seconds passed skipped why")
Outcome.__doc__ = """What one test did. `result`: pass, fail or skip; `passed` and `skipped` count its subtests."""

HEAD = """\
# {title}

One broker over plain TCP. Written by `run --record`; what the words mean stands in `README.md`. Seconds; in
parentheses how many subtests skipped themselves. Tests that nobody has run here say -.

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
    count = collections.Counter(outcome.result for outcome in outcomes)
    return f"=== {count['pass']} passed, {len(complaints)} failed, {count['skip']} skipped in {seconds:.0f}s ==="


def record(path, title, expected, shards, outcomes):
    """Writes the table at `path`, with the results of this run in place of older ones of the same tests."""
    today = datetime.date.today().isoformat()
    old = {row[0]: row for row in _rows(path)}
    rows = {}
    for test in sorted({*expected, *outcomes}):
        want = expected.get(test, UNKNOWN)
        kafka = "-" if want.kafka == "-" else f"{want.kafka} {want.seconds:.1f}"
        row = rows[test] = old.get(test, [test, kafka, "-", "", "-", "", ""])
        row[1], row[6] = kafka, want.remark
        if test in outcomes:
            row[COLUMN[shards]:COLUMN[shards] + 2] = [_cell(outcomes[test]), today]
    body = "".join(f"| {' | '.join(row)} |\n" for row in rows.values())
    path.write_text(HEAD.format(title=title) + body)


def _rows(path):
    lines = path.read_text().splitlines() if path.exists() else []
    table = [line for line in lines if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def _cell(outcome):
    skipped = f" ({outcome.skipped})" if outcome.skipped else ""
    return f"{outcome.result} {outcome.seconds:.1f}{skipped}"


def record_kafka(path, outcomes):
    """Writes what Apache Kafka did into the list at `path`; what is expected of a test that was not there yet is the
    same."""
    comments = [line for line in path.read_text().splitlines() if line.startswith("#")]
    tests = read_expected(path)
    for test, outcome in outcomes.items():
        if test in tests:
            tests[test] = tests[test]._replace(kafka=outcome.result, seconds=outcome.seconds)
        else:
            tests[test] = Expected(outcome.result, outcome.result, outcome.seconds, "full", (), outcome.why)
    width = max(map(len, tests), default=0)
    body = [f"{test:{width}}  {want.result:5}  {want.kafka:5}  {want.seconds:5.1f}  {want.group:4}  "
            f"{'|'.join(want.subtests) or '*'}  {re.sub(chr(10), ' ', want.remark)}".rstrip()
            for test, want in tests.items()]
    path.write_text("\n".join(comments + body) + "\n")
