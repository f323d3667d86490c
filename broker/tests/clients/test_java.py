"""Kafka's Java producer, consumer and admin client: Driver.java does the work; what it wrote is read back here too."""

import functools

import pytest

from drivers import run_driver
from harness import assert_same, stream, unique
from reading import read_all
from test_java_tools import java
from wire import stored_batches

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
CHECKS = (*(f"round_trip_{codec}" for codec in CODECS), "not_idempotent", "seek", "topics", "refusals", "configs",
          "broker_configs", "offsets", "too_large", "auto_creation", "auto_creation_off", "partitioner", "long_poll")


@functools.cache
def driven(broker):
    return run_driver(java("Driver", keep_classes=True), broker, unique("java"))


@pytest.mark.parametrize("check", CHECKS)
def test_driver(broker, check):
    assert driven(broker).results[check] == ""


def test_every_check_is_listed(broker):
    assert sorted(driven(broker).results) == sorted(CHECKS)


@pytest.mark.parametrize("tag", (*CODECS, "plain"))
def test_contents(broker, tag):
    topic = f"{driven(broker).prefix}-{tag}"
    assert_same(read_all(broker.bootstrap, topic), stream(tag))
    batches = [b for p in (0, 1) for b in stored_batches(broker.bootstrap, topic, p)]
    assert {b.codec for b in batches} == {tag if tag in CODECS else "none"}
    assert all((b.producer_id >= 0) == (tag != "plain") for b in batches), "idempotent unless told not to be"
