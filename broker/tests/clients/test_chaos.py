"""Groups under churn: a short run of the command `chaos`, and that each of its checks can fail."""

import json
import signal

import pytest

from churn.__main__ import parse
from churn.reports import Report
from churn.run import Run
from churn.truths import Truths

PEACEFUL = {"a": [0], "b": [1]}


def test_nothing_is_lost_under_churn(binary, tmp_path):
    options = parse(["--minutes", "0.6", "--members", "10", "--kill-every", "11", "--rate", "300", "--binary", str(binary)])
    run = Run(options, tmp_path, print)
    print(f"seed {options.seed}")
    truths = run.run()
    print("\n".join(run.lines()))
    assert truths.violations == []
    # Which of them the seed decides.
    assert run.events["kill"] + run.events["leave"] and run.events["broker killed"] + run.events["broker stopped"]
    assert all(group.commits > 100 for group in truths.groups.values())
    run.remove()


# ---- each check can fail -----------------------------------------------------------------------------------------------


@pytest.fixture
def truths():
    """Two partitions of three records each, all consumed, two of each committed."""
    truths = Truths(["g"], 2)
    for partition in range(2):
        for offset in range(3):
            truths.acknowledged(partition, offset, 10 * partition + offset)
            truths.consumed("g", partition, offset, 10 * partition + offset)
        truths.committed("g", partition, 2)
    return truths


def rest(truths, state="STABLE", owned=PEACEFUL, offsets=(3, 3)):
    return truths.is_at_rest("g", state, owned, 2, offsets, [3, 3])


def test_what_is_true_is_no_violation(truths):
    truths.given_back("g", truths.known("g"), [2, 2], [3, 3])
    truths.consumed("g", 0, 0, 0)
    truths.check_contents("g")
    assert truths.violations == [] and rest(truths) == ""


def test_a_record_that_no_member_was_given(truths):
    truths.acknowledged(1, 3, 13)
    assert "not given 1 acknowledged records, the first at 1@3" in rest(truths)


def test_a_record_that_is_not_what_was_written(truths):
    truths.consumed("g", 1, 1, 99)
    truths.check_contents("g")
    assert [v for v in truths.violations if "was given 99 at 1@1, where 11 was written" in v]


def test_a_record_that_was_never_sent(truths):
    truths.consumed("g", 1, 3, 5)
    truths.check_contents("g")
    assert truths.violations == ["g was given 5 at 1@3, where -1 was written"]


def test_two_records_at_one_offset(truths):
    truths.acknowledged(0, 1, 77)
    assert truths.violations == ["records 1 and 77 were both acknowledged at 0@1"]


@pytest.mark.parametrize("offsets, what", (([1, 2], "2 is lost"), ([2, 0], "2 is lost"), ([2, 4], "ends at 3")))
def test_a_commit_that_is_lost_or_of_nothing(truths, offsets, what):
    truths.given_back("g", truths.known("g"), offsets, [3, 3])
    assert len(truths.violations) == 1 and what in truths.violations[0]


def test_a_commit_that_was_shown_and_is_gone(truths):
    truths.given_back("g", truths.known("g"), [3, 2], [3, 3])
    truths.given_back("g", truths.known("g"), [2, 2], [3, 3])
    assert truths.violations == ["g has 2 committed in partition 0: 3 is lost"]


@pytest.mark.parametrize("at, why", (
    ({"state": "PREPARING_REBALANCE"}, "g is PREPARING_REBALANCE"),
    ({"owned": {"a": [0, 1]}}, "1 members instead of 2"),
    ({"owned": {"a": [0], "b": [0]}}, "does not own each partition once"),
    ({"owned": {"a": [0], "b": []}}, "does not own each partition once"),
    ({"offsets": (3, 2)}, "a lag of 1"),
))
def test_a_group_that_is_stuck(truths, at, why):
    assert why in rest(truths, **at)


def test_a_commit_that_a_member_gave_up_for_a_rebalance(truths, tmp_path):
    path = tmp_path / "report"
    error = "Offset commit cannot be completed since the consumer is undergoing a rebalance"
    event = {"name": "offsets_committed", "success": False, "error": error, "offsets": [{"partition": 1, "offset": 2}]}
    path.write_text(json.dumps(event) + "\n")
    take = {"u": truths.given_up}
    report = Report(path, lambda kind, *numbers: take[kind]("g", *numbers))
    report.read()
    assert "a lag of 1" in rest(truths, offsets=(3, 2)), "not of the last record"
    event["offsets"][0]["offset"] = 3
    path.write_text(path.read_text() + json.dumps(event) + "\n" + json.dumps(event | {"error": "timed out"}) + "\n")
    report.read()
    assert rest(truths, offsets=(3, 2)) == ""
    assert "a lag of 1" in rest(truths, offsets=(2, 2)), "of another partition"


def test_a_member_that_ends_by_itself(tmp_path):
    from churn.crowd import Crowd
    crowd = Crowd("127.0.0.1:1", "t", tmp_path, 8, Truths(["eager"], 1))
    place = crowd.places[0]
    place.start()
    place.member.process.send_signal(signal.SIGKILL)
    place.member.process.wait()
    crowd.reap(0)
    assert "ended by itself with status -9" in crowd.truths.violations[0] and place.member is None
