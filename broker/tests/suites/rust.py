"""The integration tests of the crates rdkafka and rskafka: the packages from crates.io, which hold their `tests/`."""

import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import urllib.request

import process
from results import Outcome

# Tests that know of no other place for a broker.
AT_9092 = {"test_high_producers::test_future_producer_send", "test_high_producers::test_future_producer_send_fail",
           "test_metadata::test_metadata"}
ROOT = pathlib.Path(__file__).resolve().parents[3]


class Crate:
    """A crate whose tests find a broker by environment variables. Its own lock file fixes what it is built with."""

    def __init__(self, name, version, sha256, settings, environment, updates=()):
        self.NAME, self.version, self.sha256 = name, version, sha256
        self.TITLE = f"The integration tests of the crate {name} ({name} {version})"
        self._settings, self._environment, self._updates = settings, environment, updates

    def home(self, cache):
        return cache / self.NAME

    def present(self, cache):
        """Whether the cache holds the built tests."""
        built = self._source(cache) / "built.json"
        return built.exists() and json.loads(built.read_text())["sha256"] == self.sha256

    def install(self, cache):
        """Fetches the crate and builds its tests where the cache does not hold them yet."""
        if self.present(cache):
            return
        home, source = self.home(cache), self._source(cache)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as work:
            with tarfile.open(self._fetch(work)) as tar:
                tar.extractall(work, filter="data")
            shutil.rmtree(source, ignore_errors=True)
            shutil.move(f"{work}/{source.name}", source)
        # The cache may lie within this project, whose workspace the crate is no part of.
        with open(source / "Cargo.toml", "a") as manifest:
            manifest.write("\n[workspace]\n")
        command = ["cargo", "test", "--no-run", "--locked", "--tests", "--target-dir", home / "target"]
        # Their own choice of a toolchain need not be installed.
        env = process.environment(RUSTUP_TOOLCHAIN=tomllib.loads((ROOT / "rust-toolchain.toml").read_text())
                                  ["toolchain"]["channel"])
        for package, newer in self._updates:
            process.build(["cargo", "update", "--package", package, "--precise", newer], source, home / "build.log", env)
        process.build(command, source, home / "build.log", env)
        messages = subprocess.run([*command, "--message-format=json"], cwd=source, env=env, check=True,
                                  capture_output=True, text=True).stdout.splitlines()
        built = [message for message in map(json.loads, messages) if message.get("executable")]
        programs = {message["target"]["name"]: message["executable"] for message in built
                    if "test" in message["target"]["kind"]}
        (source / "built.json").write_text(json.dumps({"sha256": self.sha256, "programs": programs}))

    def _fetch(self, directory):
        archive = pathlib.Path(directory, "crate")
        url = f"https://static.crates.io/crates/{self.NAME}/{self.NAME}-{self.version}.crate"
        with urllib.request.urlopen(url, timeout=60) as answer:
            archive.write_bytes(answer.read())
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != self.sha256:
            raise SystemExit(f"{url} has sha256 {digest}, not {self.sha256}")
        return archive

    def _source(self, cache):
        return self.home(cache) / f"{self.NAME}-{self.version}"

    def _programs(self, cache):
        return json.loads((self._source(cache) / "built.json").read_text())["programs"]

    def tests(self, cache):
        names = []
        for program, path in sorted(self._programs(cache).items()):
            listed = subprocess.run([path, "--list", "--format=terse"], check=True, capture_output=True, text=True).stdout
            names += [f"{program}::{name}" for name in re.findall(r"^(\S+): test$", listed, re.M)]
        return names

    def settings(self, test):
        advertised = ("advertised.listeners=PLAINTEXT://127.0.0.1:9092",) if test in AT_9092 else ()
        return *self._settings, *advertised

    def run_test(self, test, want, cache, address, directory, limit_s):
        program, name = test.split("::", 1)
        log = directory / f"{test.replace('::', '-')}.log"
        env = process.environment(**self._environment(address))
        command = [self._programs(cache)[program], "--exact", name, "--include-ignored", "--nocapture"]
        status, seconds = process.run(command, self._source(cache), env, log, limit_s)
        result, why = judge(log.read_text(errors="replace"), status)
        return Outcome(result, seconds, 0, 0, why)


def judge(output, status):
    """(result, why) of one test, from what its program printed and the exit status, None at the time limit.

    A test that returns at once passes for its program: what rskafka's say as they do so is looked for.
    """
    if status is None:
        return "fail", "no end within the time limit"
    panic = re.search(r"^thread .* panicked at .*:\n(.*)", output, re.M)
    if status != 0 or not re.search(r"^test result: ok\. 1 passed; 0 failed;", output, re.M):
        return "fail", panic.group(1).strip() if panic else f"exit status {status}"
    declined = re.search(r"^skipping .*|^Skipping .*", output, re.M)
    return ("skip", declined.group(0)) if declined else ("pass", "")


RDKAFKA = Crate(
    "rdkafka", "0.39.0", "d7956f9ac12b5712e50372d9749a3102f4810a8d42481c5eae3748d36d585bcf",
    # As in the crate's docker-compose.yaml.
    ("node.id=0", "num.partitions=3"),
    lambda address: {"KAFKA_HOST": address, "KAFKA_VERSION": "4.3.1", "RUST_LOG": "off"})
RSKAFKA = Crate(
    "rskafka", "0.6.0", "849b87417a191e37e16b8893eba8928bbd10e1989e6b57c4f8531549eaa29bdc",
    # As in the crate's docker-compose-kafka.yml.
    ("auto.create.topics.enable=false",),
    lambda address: {"TEST_INTEGRATION": "1", "TEST_BROKER_IMPL": "kafka", "KAFKA_CONNECT": address,
                     "TEST_JAVA_INTEROPT": "1"},
    # That of the lock file is not Rust as newer compilers take it.
    updates=[("rsasl", "2.2.1")])
