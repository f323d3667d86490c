"""Answers of a broker to all cases, Apache Kafka's answers as they were recorded, and the comparison of the two."""

import json
import pathlib
import uuid

import admin_cases
import record_cases
import surface_cases
from by_design import ROWS, excuse
from sides import Side, differences, normal

RECORDED = pathlib.Path(__file__).resolve().parent / "kafka-4.3.1.jsonl"


def record(told):
    """Writes answers down: a line for each case and the versions that are answered alike."""
    lines = {}
    for (name, version), answer in told.items():
        lines.setdefault((name, json.dumps(answer)), []).append(version)
    rows = (f"[{json.dumps(name)}, {versions_of}, {answer}]\n" for (name, answer), versions_of in lines.items())
    RECORDED.write_text("".join(rows))


def recorded():
    """Apache Kafka's answers, as (case's name, version) to answer."""
    rows = map(json.loads, RECORDED.read_text().splitlines())
    return {(name, version): answer for name, versions_of, answer in rows for version in versions_of}


def compare(reference, other, only="", messages=False, everything=False):
    """The cases in which two brokers answer differently, each with its differences but for those by design."""
    found = {}
    for case in (case for case in reference if case in other and only in case[0]):
        paths = list(differences(reference[case], other[case], messages))
        if not everything:
            paths = [difference for difference in paths if excuse(case[0], difference[0]) is None]
        if paths:
            found[case] = paths
    return found


def idle_excuses(reference, other):
    """The rows of by_design.py that excuse no difference: what they say is not so, or not any more."""
    both = (case for case in reference if case in other)
    excused = {excuse(case[0], path) for case in both for path, _, _ in differences(reference[case], other[case], False)}
    return [row for row in ROWS if row not in excused]


def answers(address):
    """A broker's answers to all cases, without what two right brokers may say differently."""
    side, prefix, told = Side(address), f"diff-{uuid.uuid4().hex[:8]}", {}
    admin_cases.setup(side, prefix)
    for cases in (admin_cases, record_cases, surface_cases):
        for name, api, wanted, fields in cases.all_cases(prefix):
            if api is None:
                fields(side)
                continue
            for version in versions(side, api, wanted):
                answer = side.call(api, version, **(fields(side) if callable(fields) else fields))
                assert (name, version) not in told, f"two cases of one name: {name}"
                told[name, version] = json.loads(json.dumps(normal(answer), default=sorted).replace(prefix, "prefix"))
    return told


def versions(side, api, wanted):
    low, high = side.range_of(api)
    if wanted is None:
        return range(low, high + 1)
    return [v for v in (wanted if isinstance(wanted, list) else [wanted]) if low <= v <= high]


def short(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
