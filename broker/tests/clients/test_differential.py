"""Some 1,090 raw requests are answered as Apache Kafka 4.3.1 answers them, but for what is meant to differ."""

import sys

from harness import HERE

sys.path.insert(0, str(HERE / "differential"))

import kafka_answers  # noqa: E402


def test_answers_are_kafkas(broker):
    answers = kafka_answers.answers(broker.bootstrap)
    recorded = kafka_answers.recorded()
    assert not set(recorded) - set(answers), "a case or version that Kafka answers is not served"
    found = kafka_answers.compare(recorded, answers)
    lines = [
        f"{name} v{version}: {path}: Kafka {kafka_answers.short(a)}, here {kafka_answers.short(b)}"
        for (name, version), paths in found.items() for path, a, b in paths
    ]
    if broker.is_kafka is not True:  # Kafka does not differ from itself
        idle = kafka_answers.idle_excuses(recorded, answers)
        lines += [f"by_design.py excuses nothing with {row}" for row in idle]
    assert not lines, "\n" + "\n".join(lines)
