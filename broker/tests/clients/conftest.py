"""Options of the suite and the brokers that it runs against."""

import os
import pathlib

import pytest

import harness


def pytest_addoption(parser):
    group = parser.getgroup("penstock")
    group.addoption("--shards", default="1,2,4", help="shard counts to run the broker with (default: 1,2,4)")
    group.addoption("--clients", default="", help="only these clients, e.g. kcat,kafkajs (default: all)")
    group.addoption("--binary", default=None, help="the penstock binary (default: target/release/penstock)")
    group.addoption("--bootstrap", default=None, help="use the broker at this address instead of starting penstock")
    group.addoption("--kafka", action="store_true", help="calibrate: start Apache Kafka instead of penstock")


def pytest_ignore_collect(collection_path, config):
    wanted = [name for name in config.getoption("--clients").replace("-", "_").split(",") if name]
    name = collection_path.name
    if wanted and name.startswith("test_") and name[5:-3] not in wanted:
        return True
    return None


@pytest.fixture(scope="session")
def binary(pytestconfig):
    """The penstock binary; skips where another broker is under test."""
    if pytestconfig.getoption("--kafka") or pytestconfig.getoption("--bootstrap"):
        pytest.skip("starts penstock itself")
    return binary_of(pytestconfig)


def binary_of(config):
    target = os.environ.get("CARGO_TARGET_DIR", harness.HERE / "../../../target")
    return config.getoption("--binary") or pathlib.Path(target).resolve() / "release" / "penstock"


def pytest_generate_tests(metafunc):
    if "broker" in metafunc.fixturenames:
        config = metafunc.config
        if config.getoption("--bootstrap"):
            kinds = ["given"]
        elif config.getoption("--kafka"):
            kinds = ["kafka"]
        else:
            kinds = [f"{int(n)}-shard" for n in config.getoption("--shards").split(",")]
        metafunc.parametrize("broker", kinds, indirect=True, scope="session")


@pytest.fixture(scope="session")
def broker(request):
    """The broker under test, and a second one that does not create topics by itself."""
    if request.param == "given":
        yield harness.Broker(request.config.getoption("--bootstrap"), is_kafka=None, no_auto=None)
        return
    off = ("auto.create.topics.enable=false",)
    started = []
    try:
        if request.param == "kafka":
            for settings in ((), off):
                started.append(harness.start_kafka(settings))
        else:
            binary = binary_of(request.config)
            shards = int(request.param.split("-")[0])
            for settings in ((), off):
                started.append(harness.start_penstock(binary, shards, settings))
        yield harness.Broker(started[0][1], is_kafka=request.param == "kafka", no_auto=started[1][1])
    finally:
        statuses = [(process.stop(), process) for process, *_ in started]
    for status, process in statuses:
        assert status == (0 if request.param != "kafka" else 143), f"exit status {status}:\n{process.tail()}"
        process.remove()
