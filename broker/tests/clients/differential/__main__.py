"""Sends the same raw requests to two brokers and prints where their answers differ.

    python differential REFERENCE OTHER [--only WORD] [--messages]
    python differential REFERENCE --record

REFERENCE is Apache Kafka's address, or the word `recorded` for kafka-4.3.1.jsonl, which --record writes; OTHER is
penstock's. Every case runs at each version that both serve (or at the one that it is about). Left out of the
comparison: throttle times, ids, addresses, and the texts of messages unless --messages is given.
"""

import argparse
import json
import pathlib
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]
RECORDED = HERE / "kafka-4.3.1.jsonl"

import admin_cases  # noqa: E402
import record_cases  # noqa: E402
from sides import Side, differences, normal  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("other", nargs="?")
    parser.add_argument("--record", action="store_true", help="write the reference's answers down")
    parser.add_argument("--only", default="", help="only the cases whose names contain this")
    parser.add_argument("--messages", action="store_true", help="compare the texts of error messages too")
    options = parser.parse_args()
    if options.record:
        record(answers(options.reference))
        return 0
    reference = recorded() if options.reference == "recorded" else answers(options.reference)
    other = answers(options.other)
    found = compare(reference, other, options.only, options.messages)
    for (name, version), paths in found.items():
        for path, a, b in paths:
            print(f"{name} v{version}: {path}: {short(a)} | {short(b)}")
    both = [case for case in reference if case in other and options.only in case[0]]
    print(f"{len(both) - len(found)} passed, {len(found)} failed")
    return 1 if found else 0


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


def compare(reference, other, only="", messages=False):
    """The cases in which two brokers answer differently, each with its differences."""
    found = {}
    for case in (case for case in reference if case in other and only in case[0]):
        paths = list(differences(reference[case], other[case], messages))
        if paths:
            found[case] = paths
    return found


def answers(address):
    """A broker's answers to all cases, without what two right brokers may say differently."""
    side, prefix, told = Side(address), f"diff-{uuid.uuid4().hex[:8]}", {}
    admin_cases.setup(side, prefix)
    for cases in (admin_cases, record_cases):
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


if __name__ == "__main__":
    sys.exit(main())
