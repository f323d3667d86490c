"""kafkajs: driver.js does the work; what it wrote is read back here. It consumes with groups alone, so not here yet."""

import functools
import os

import pytest

from drivers import run_driver
from harness import CACHE, HERE, assert_same, stream, unique
from reading import read_all
from wire import packed_codecs, stored_batches

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
CHECKS = ("topics", "refusals", "configs", "offsets", "idempotent", "too_large", "auto_creation", "auto_creation_off",
          "partitioner", *(f"produce_{codec}" for codec in CODECS))


@functools.cache
def driven(broker):
    env = {**os.environ, "NODE_PATH": str(CACHE / "kafkajs" / "node_modules")}
    return run_driver(["node", HERE / "kafkajs" / "driver.js"], broker, unique("kjs"), env=env)


@pytest.mark.parametrize("check", CHECKS)
def test_driver(broker, check):
    assert driven(broker).results[check] == ""


def test_every_check_is_listed(broker):
    assert sorted(driven(broker).results) == sorted(CHECKS)


@pytest.mark.parametrize("tag", (*CODECS, "idempotent", "offsets"))
def test_contents(broker, tag):
    topic = f"{driven(broker).prefix}-{tag}"
    want = stream(tag, null_headers=False)
    if tag == "offsets":
        want = [r for r in want if r.partition == 0 or r.offset >= 40]
    assert_same(read_all(broker.bootstrap, topic), want)
    if tag in CODECS:
        assert packed_codecs(broker.bootstrap, topic) == {tag}
    if tag == "idempotent":
        batches = stored_batches(broker.bootstrap, topic, 1)
        assert batches[0].producer_id >= 0 and [b.base_sequence for b in batches] == [b.base_offset for b in batches]
