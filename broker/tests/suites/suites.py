"""The suites that there are. Each has:

- `NAME`, `TITLE`; `home(cache)`, where it lives in the cache;
- `present(cache)` and `install(cache)`: whether it is fetched and built there, and doing so;
- `tests(cache)`: all of its tests, where it can tell; otherwise the list in expected/ does;
- `settings(test)`: the broker settings that a test needs;
- `run_test(test, want, cache, address, directory, limit_s)`: what one test did.
"""

import os
import pathlib

from kafka_python import KafkaPython
from librdkafka import Librdkafka
from rust import RDKAFKA, RSKAFKA

SUITES = {suite.NAME: suite for suite in (Librdkafka(), KafkaPython(), RDKAFKA, RSKAFKA)}
# Those that run with all other tests.
IN_CI = ["librdkafka", "kafka-python"]


def cache():
    """Where suites are fetched to and built: outside the source tree."""
    given = os.environ.get("PENSTOCK_SUITES_DIR")
    target = os.environ.get("CARGO_TARGET_DIR") or pathlib.Path(__file__).resolve().parents[3] / "target"
    return pathlib.Path(given or pathlib.Path(target) / "suites").resolve()
