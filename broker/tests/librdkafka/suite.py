"""librdkafka's own test suite: fetched from npm, built into a cache, and one test of it run and judged.

The runner exits 0 and prints "<MAIN> PASSED" for a test that skipped itself or never ran, and its quick mode (-Q)
passes subtests that it leaves out. So a test counts as passed only by the line that it prints about itself.
"""

import collections
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time

PACKAGE = "@confluentinc/kafka-javascript@1.10.1"
PACKAGE_SHA256 = "ada7d703bb1d3237e2292bfabf438d663b6160c9f1ac2a2406b5dc4257c81b66"
LIBRDKAFKA = "2.15.1"
# Without SASL over Kerberos and without OIDC; the codecs in librdkafka's own source except zlib and zstd, which are
# used where the system has them.
CONFIGURE = ["--disable-gssapi", "--disable-sasl", "--disable-curl", "--disable-lz4-ext", "--disable-syslog"]
# What the suite is told about the broker: decides which tests it holds to be applicable.
KAFKA_VERSION = "4.3.0"
# How long a new group waits for further members, where it is not 0. 0102 expects two consumers that start together to
# meet in one generation, but librdkafka tries connections only every 50 ms: one may come when the generation of the
# other stands already. That happened in 1 of 16 runs on Apache Kafka 4.3.1, whose joining takes longer, and in 6 of 15
# here.
REBALANCE_DELAY_MS = {"0102": 1000}

Outcome = collections.namedtuple("Outcome", "result seconds passed skipped why")
Outcome.__doc__ = """What one test did. `result`: pass, fail or skip; `passed` and `skipped` count its subtests."""


def install(cache):
    """The directory with the built runner, fetched and built where the cache does not hold this version already."""
    source = cache / f"librdkafka-{LIBRDKAFKA}"
    tests = source / "tests"
    stamp = source / "built"
    if stamp.exists() and stamp.read_text() == " ".join(CONFIGURE):
        return tests
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        _unpack(_fetch(work), work)
        shutil.rmtree(source, ignore_errors=True)
        shutil.move(f"{work}/package/deps/librdkafka", source)
    log = cache / "build.log"
    with open(log, "wb") as out:
        for command in (["bash", "configure", *CONFIGURE], ["make", "-j2", "libs"],
                        ["make", "-j2", "-C", "tests", "test-runner"]):
            if subprocess.run(command, cwd=source, stdout=out, stderr=out).returncode:
                raise SystemExit(f"building librdkafka failed at {' '.join(command)}; see {log}")
    stamp.write_text(" ".join(CONFIGURE))
    return tests


def _fetch(directory):
    subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    [archive] = pathlib.Path(directory).glob("*.tgz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise SystemExit(f"{PACKAGE} has sha256 {digest}, not {PACKAGE_SHA256}")
    return archive


def _unpack(archive, directory):
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="data")
    # npm keeps no permissions: the scripts that the makefiles call must be executable again.
    root = pathlib.Path(directory, "package/deps/librdkafka")
    for script in [root / "configure", *root.rglob("*.py"), *root.rglob("*.sh")]:
        script.chmod(0o755)


def judge(test, output, status, word=None):
    """(result, subtests passed, subtests skipped, why) of the test with this number, from what its process printed.

    `status` is the exit status, or None where the process was ended at the time limit. Where only the subtests with
    `word` in their names were to run, at least one of them must have passed.
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    own = dict(re.findall(rf"^.*=+ Test ({test}_\w+) (PASSED|FAILED|SKIPPED) =+", plain, re.M))
    passed = len(re.findall(r"\[ \w+:\d+.*: PASS \([\d.]+s\) \]", plain))
    skipped = len(re.findall(r"\[ \w+:\d+.*: SKIP: .* \]", plain))
    if status is None:
        return "fail", passed, skipped, f"no end within the time limit{_last_subtest(plain)}"
    if status != 0 or "FAILED" in own.values():
        return "fail", passed, skipped, _why_failed(plain, status)
    if word and not passed:
        return "fail", passed, skipped, f"no subtest with {word} in its name passed"
    if "PASSED" in own.values():
        return "pass", passed, skipped, ""
    reason = re.search(r"SKIPPING TEST: (.*)", plain)
    return "skip", passed, skipped, reason.group(1).strip() if reason else "ran nothing"


def _why_failed(plain, status):
    first = re.search(r"### Test \".*\" failed at .*: ###\n(.*)", plain)
    if first:
        return first.group(1).strip()
    return f"exit status {status}{_last_subtest(plain)}"


def _last_subtest(plain):
    started = re.findall(r"\[ (\w+:\d+[^\]]*?) \]", plain)
    return f", last in {started[-1]}" if started else ""


class Broker:
    """A `penstock serve` over a directory of its own, on ports from the kernel."""

    def __init__(self, binary, shards, directory, delay_ms=0):
        directory.mkdir(exist_ok=True)
        self.log = directory / "broker.log"
        self._log = open(self.log, "ab")
        self.child = subprocess.Popen(
            [binary, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir", directory / "data",
             "--shards", str(shards), "--set", "num.partitions=4",
             "--set", f"group.initial.rebalance.delay.ms={delay_ms}"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        while self.lives():
            ready = re.search(r"^ready .*\bkafka=(\S+)", self.log.read_text(errors="replace"), re.M)
            if ready:
                self.address = ready.group(1)
                return
            time.sleep(0.02)
        raise SystemExit(f"{binary} did not start; see {self.log}")

    def lives(self):
        return self.child.poll() is None

    def stop(self):
        """Asks it to end; whether it did so with status 0."""
        self.child.send_signal(signal.SIGTERM)
        try:
            status = self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = self.child.wait()
        self._log.close()
        return status == 0


def run_test(test, subtests, tests, broker, directory, limit_s):
    """Runs one test: all of it in one process, or one process for each word of `subtests` with the subtests whose
    names hold the word. The output stays in `directory`."""
    outcomes = [_run_process(test, word, tests, broker, directory, limit_s) for word in subtests or [None]]
    worst = next((outcome for outcome in outcomes if outcome.result != "pass"), outcomes[0])
    return Outcome(worst.result, sum(outcome.seconds for outcome in outcomes),
                   sum(outcome.passed for outcome in outcomes), sum(outcome.skipped for outcome in outcomes), worst.why)


def _run_process(test, word, tests, broker, directory, limit_s):
    name = f"{test}-{word}" if word else test
    work = directory / name
    work.mkdir(parents=True, exist_ok=True)
    conf = work / "test.conf"
    conf.write_text(f"bootstrap.servers={broker.address}\ntest.topic.random=true\n")
    libraries = f"{tests.parent / 'src'}:{tests.parent / 'src-cpp'}"
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "TEST_DEBUG", "KAFKA_PATH")}
    env |= {"TESTS": test, "TEST_KAFKA_VERSION": KAFKA_VERSION, "RDKAFKA_TEST_CONF": str(conf),
            "LD_LIBRARY_PATH": libraries} | ({"SUBTESTS": word} if word else {})
    log = directory / f"{name}.log"
    begin = time.monotonic()
    with open(log, "wb") as out:
        # -L: none of those that use no broker.
        child = subprocess.Popen([tests / "test-runner", "-L"], cwd=work, env=env,
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            status = None
    seconds = time.monotonic() - begin
    result, passed, skipped, why = judge(test, log.read_text(errors="replace"), status, word)
    shutil.rmtree(work)
    return Outcome(result, seconds, passed, skipped, why)
