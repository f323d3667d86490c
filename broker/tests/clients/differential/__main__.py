"""Sends the same raw requests to two brokers and prints where their answers differ.

    python differential REFERENCE OTHER [--only WORD] [--messages] [--everything]
    python differential REFERENCE --record

REFERENCE is Apache Kafka's address, or the word `recorded` for kafka-4.3.1.jsonl, which --record writes; OTHER is
penstock's. Every case runs at each version that both serve (or at the one that it is about). Left out of the
comparison: throttle times, ids, addresses, the texts of messages unless --messages is given, and what differs by design
(by_design.py) unless --everything is given.
"""

import argparse
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from kafka_answers import answers, compare, idle_excuses, record, recorded, short  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference")
    parser.add_argument("other", nargs="?")
    parser.add_argument("--record", action="store_true", help="write the reference's answers down")
    parser.add_argument("--only", default="", help="only the cases whose names contain this")
    parser.add_argument("--messages", action="store_true", help="compare the texts of error messages too")
    parser.add_argument("--everything", action="store_true", help="print what differs by design too")
    options = parser.parse_args()
    if options.record:
        record(answers(options.reference))
        return 0
    reference = recorded() if options.reference == "recorded" else answers(options.reference)
    other = answers(options.other)
    found = compare(reference, other, options.only, options.messages, options.everything)
    for (name, version), paths in found.items():
        for path, a, b in paths:
            print(f"{name} v{version}: {path}: {short(a)} | {short(b)}")
    idle = idle_excuses(reference, other) if not options.only else []
    for case, field, why in idle:
        print(f"by_design.py excuses nothing with {case} {field}: {why}")
    both = [case for case in reference if case in other and options.only in case[0]]
    print(f"{len(both) - len(found)} passed, {len(found)} failed")
    return 1 if found or idle else 0


if __name__ == "__main__":
    sys.exit(main())
