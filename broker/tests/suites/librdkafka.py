"""librdkafka's own test suite: fetched from npm, built into a cache, and one test of it run and judged.

The runner exits 0 and prints "<MAIN> PASSED" for a test that skipped itself or never ran, and its quick mode (-Q)
passes subtests that it leaves out. So a test counts as passed only by the line that it prints about itself.
"""

import hashlib
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile

import attempts
import process
from results import Outcome

PACKAGE = "@confluentinc/kafka-javascript@1.10.1"
PACKAGE_SHA256 = "ada7d703bb1d3237e2292bfabf438d663b6160c9f1ac2a2406b5dc4257c81b66"
VERSION = "2.15.1"
# Without SASL over Kerberos and without OIDC; the codecs in librdkafka's own source except zlib and zstd, which are
# used where the system has them.
CONFIGURE = ["--disable-gssapi", "--disable-sasl", "--disable-curl", "--disable-lz4-ext", "--disable-syslog"]
# What the suite is told about the broker: decides which tests it holds to be applicable.
KAFKA_VERSION = "4.3.0"
# How long a new group waits for further members, where it is not 0. 0102 expects two consumers that start together to
# meet in one generation, but librdkafka tries connections only every 50 ms: one may come when the generation of the
# other stands already. That happened in 1 of 16 runs on Apache Kafka 4.3.1, whose joining takes longer, and in 6 of 15
# here. 0118 expects the commit of a consumer that closes to be refused, and takes any loss of partitions for closing: it
# must not meet the one for which its first consumer came second.
REBALANCE_DELAY_MS = {"0102": 1000, "0118": 1000}
# 0057 produces a few records to a topic whose name is invalid, and wants the broker's error of each. Once the broker has
# answered with it, librdkafka's produce() refuses further ones as of an unknown topic (rd_kafka_msg_partitioner): so it
# did where the answer came before the last of them was produced, 4 ms after the start. Any other answer than that error
# makes a topic unknown after 30 s only, and would be told in the delivery reports.
EARLY_ANSWER = ("0057", "test_invalid_topic:90: Expected Broker: Invalid topic, got Local: Unknown topic")


class Librdkafka:
    NAME = "librdkafka"
    TITLE = f"librdkafka's own tests (librdkafka {VERSION})"

    def home(self, cache):
        return cache / "librdkafka"

    def present(self, cache):
        """Whether the cache holds the runner, built as it is wanted here."""
        stamp = self._source(cache) / "built"
        return stamp.exists() and stamp.read_text() == " ".join(CONFIGURE)

    def install(self, cache):
        """Fetches and builds the runner where the cache does not hold it yet."""
        if self.present(cache):
            return
        home, source = self.home(cache), self._source(cache)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as work:
            _unpack(_fetch(work), work)
            shutil.rmtree(source, ignore_errors=True)
            shutil.move(f"{work}/package/deps/librdkafka", source)
        for command in (["bash", "configure", *CONFIGURE], ["make", "-j2", "libs"],
                        ["make", "-j2", "-C", "tests", "test-runner"]):
            process.build(command, source, home / "build.log")
        (source / "built").write_text(" ".join(CONFIGURE))

    def _source(self, cache):
        return self.home(cache) / f"librdkafka-{VERSION}"

    def tests(self, cache):
        """Nothing: the runner does not tell which of its tests use a broker, so the list does."""
        return []

    def settings(self, test):
        return "num.partitions=4", f"group.initial.rebalance.delay.ms={REBALANCE_DELAY_MS.get(test, 0)}"

    def run_test(self, test, want, cache, address, directory, limit_s):
        """Runs one test: all of it in one process, or one process for each word of its subtests with those whose names
        hold the word. The output stays in `directory`."""
        runner = self._source(cache) / "tests/test-runner"
        outcomes = [_run_process(test, word, runner, address, directory, limit_s) for word in want.subtests or [None]]
        worst = next((outcome for outcome in outcomes if outcome.result != "pass"), outcomes[0])
        return worst._replace(seconds=sum(outcome.seconds for outcome in outcomes),
                              passed=sum(outcome.passed for outcome in outcomes),
                              skipped=sum(outcome.skipped for outcome in outcomes))


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


def client_fault(test, why):
    """What a client did wrong that no broker can cause, where the reason of its failure shows that; "" otherwise."""
    return "had its answer too early" if (test, why) == EARLY_ANSWER else ""


def _run_process(test, word, runner, address, directory, limit_s):
    name = f"{test}-{word}" if word else test
    work = directory / name
    work.mkdir(parents=True, exist_ok=True)
    conf = work / "test.conf"
    conf.write_text(f"bootstrap.servers={address}\ntest.topic.random=true\n")
    source = runner.parents[1]
    env = process.environment(
        TESTS=test, TEST_KAFKA_VERSION=KAFKA_VERSION, RDKAFKA_TEST_CONF=str(conf),
        LD_LIBRARY_PATH=f"{source / 'src'}:{source / 'src-cpp'}", **({"SUBTESTS": word} if word else {}))
    log = directory / f"{name}.log"

    def once():
        # -L: none of those that use no broker.
        status, seconds = process.run([runner, "-L"], work, env, log, limit_s)
        result, passed, skipped, why = judge(test, log.read_text(errors="replace"), status, word)
        return Outcome(result, seconds, passed, skipped, why)

    outcome = attempts.outcome_of(once, lambda failed: client_fault(test, failed.why), log)
    shutil.rmtree(work)
    return outcome
