"""Sends the same raw requests to two brokers and prints where their answers differ.

    python differential REFERENCE OTHER [--only WORD] [--messages]

REFERENCE and OTHER are addresses: Apache Kafka's and penstock's. Every case runs at each version that both serve
(or at the one that it is about). Left out of the comparison: throttle times, ids, addresses, and the text of messages
unless --messages is given. Not everything that differs is wrong: README.md lists what differs by design.
"""

import argparse
import pathlib
import sys
import uuid

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]

import admin_cases  # noqa: E402
import record_cases  # noqa: E402
from sides import Side, differences, normal  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("other")
    parser.add_argument("--only", default="", help="only the cases whose names contain this")
    parser.add_argument("--messages", action="store_true", help="compare the texts of error messages too")
    options = parser.parse_args()
    sides = (Side(options.reference), Side(options.other))
    prefix = f"diff-{uuid.uuid4().hex[:8]}"
    for side in sides:
        admin_cases.setup(side, prefix)
    compared = differing = 0
    for cases in (admin_cases, record_cases):
        for name, api, wanted, fields in cases.all_cases(prefix):
            if api is None:
                for side in sides:
                    fields(side)
                continue
            for version in versions(sides, api, wanted):
                answers = [answer_of(side, api, version, fields, options.messages) for side in sides]
                if options.only not in name:
                    continue
                compared += 1
                found = list(differences(*answers))
                differing += bool(found)
                for path, reference, other in found:
                    print(f"{name} v{version}: {path}: {short(reference)} | {short(other)}")
    print(f"{compared - differing} passed, {differing} failed")
    return 1 if differing else 0


def versions(sides, api, wanted):
    low = max(side.range_of(api)[0] for side in sides)
    high = min(side.range_of(api)[1] for side in sides)
    both = range(low, high + 1)
    if wanted is None:
        return both
    return [v for v in (wanted if isinstance(wanted, list) else [wanted]) if v in both]


def answer_of(side, api, version, fields, messages):
    return normal(side.call(api, version, **(fields(side) if callable(fields) else fields)), messages)


def short(value):
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


if __name__ == "__main__":
    sys.exit(main())
