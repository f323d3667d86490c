"""Some 840 raw requests are answered as Apache Kafka 4.3.1 answers them, but for what is listed here with its reason."""

import sys

from harness import HERE

sys.path.insert(0, str(HERE / "differential"))

import kafka_answers  # noqa: E402

# Words of a case's name and the end of a path, and why the answer is different there.
BY_DESIGN = []


def test_answers_are_kafkas(broker):
    found = kafka_answers.compare(kafka_answers.recorded(), kafka_answers.answers(broker.bootstrap))
    lines = [
        f"{name} v{version}: {path}: Kafka {kafka_answers.short(a)}, here {kafka_answers.short(b)}"
        for (name, version), paths in found.items() for path, a, b in paths
        if not any(words in name and path.endswith(end) for words, end, _ in BY_DESIGN)
    ]
    assert not lines, "\n" + "\n".join(lines)
