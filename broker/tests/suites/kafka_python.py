"""kafka-python's own integration tests: the sdist from PyPI, whose fixtures start a Kafka, told to use a running broker.

The sdist leaves out two files of `test/` that its fixtures import; `external_service.py` stands in for one of them.
"""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

import attempts
import process
from results import Outcome

HERE = pathlib.Path(__file__).resolve().parent
VERSION = "3.0.12"
SHA256 = "4ccda3616b9aa5c353d74a97f2770d6cd1b950890d77ab0e8890e09a48eeed65"
# What the tests use beside the package, which they take from the sdist itself.
REQUIREMENTS = ["pytest==9.2.0", "lz4==4.4.5", "python-snappy==0.7.3", "cramjam==2.14.0", "zstandard==0.25.0"]
# What the suite is told about the broker: which APIs and versions the clients use without asking.
KAFKA_VERSION = "4.3"
FOLDER = "test/integration"


class KafkaPython:
    NAME = "kafka-python"
    TITLE = f"kafka-python's own integration tests (kafka-python {VERSION})"

    def home(self, cache):
        return cache / "kafka-python"

    def present(self, cache):
        """Whether the cache holds the tests and what they need."""
        stamp = self._source(cache) / "built"
        return stamp.exists() and stamp.read_text() == self._wanted()

    def install(self, cache):
        """Fetches the sdist, and makes an environment to run it in, where the cache does not hold them yet."""
        if self.present(cache):
            return
        home, source = self.home(cache), self._source(cache)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as work:
            with tarfile.open(_fetch(work)) as tar:
                tar.extractall(work, filter="data")
            shutil.rmtree(source, ignore_errors=True)
            shutil.move(f"{work}/kafka_python-{VERSION}", source)
        # Without the first, `import test` finds Python's own tests.
        (source / "test/__init__.py").touch()
        shutil.copy(HERE / "external_service.py", source / "test/service.py")
        log = home / "build.log"
        process.build([sys.executable, "-m", "venv", "--clear", home / "venv"], home, log)
        process.build([home / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS],
                      home, log)
        (source / "built").write_text(self._wanted())

    def _wanted(self):
        return " ".join([SHA256, *REQUIREMENTS]) + (HERE / "external_service.py").read_text()

    def _source(self, cache):
        return self.home(cache) / f"kafka_python-{VERSION}"

    def tests(self, cache):
        command = [*self._pytest(cache), "--collect-only", "--quiet", FOLDER]
        listed = subprocess.run(command, cwd=self._source(cache), env=self._environment(cache, "127.0.0.1:1"),
                                check=True, capture_output=True, text=True).stdout
        return re.findall(rf"^{FOLDER}/(\S+::\S+)$", listed, re.M)

    def settings(self, test):
        # What kafka-python's own configuration of a test broker changes.
        return ("node.id=0", "num.partitions=4", "group.initial.rebalance.delay.ms=0",
                "group.min.session.timeout.ms=1000", "advertised.listeners=PLAINTEXT://127.0.0.1:{port}")

    def run_test(self, test, want, cache, address, directory, limit_s):
        stem = re.sub(r"\W+", "-", test)
        log, report = directory / f"{stem}.log", directory / f"{stem}.xml"
        command = [*self._pytest(cache), f"--junitxml={report}", f"{FOLDER}/{test}"]

        def once():
            report.unlink(missing_ok=True)
            status, seconds = process.run(
                command, self._source(cache), self._environment(cache, address), log, limit_s)
            result, why = judge(report.read_text() if report.exists() else "", status)
            return Outcome(result, seconds, 0, 0, why)

        return attempts.outcome_of(once, lambda _: client_fault(log.read_text(errors="replace")), log)

    def _pytest(self, cache):
        # Their own options ask for a plug-in that bounds the time, which is done from outside here.
        return [self.home(cache) / "venv/bin/python", "-B", "-m", "pytest", "-p", "no:cacheprovider", "-o", "addopts="]

    def _environment(self, cache, address):
        # The fixtures want a folder to stand where Kafka would be, even though they start none.
        return process.environment(KAFKA_VERSION=KAFKA_VERSION, KAFKA_URI=f"kafka://{address}",
                                   KAFKA_ROOT=os.fspath(self.home(cache)))


def _fetch(directory):
    package = f"kafka-python=={VERSION}"
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-binary", ":all:", package], cwd=directory, check=True)
    [archive] = pathlib.Path(directory).glob("*.tar.gz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{package} has sha256 {digest}, not {SHA256}")
    return archive


def client_fault(log):
    """What a client did wrong that no broker can cause, where its log shows that; "" otherwise."""
    if missed_subscription(log):
        return "missed its subscription"
    if stopped_heartbeats(log):
        return "joined and sent no heartbeat"
    if lost_a_class(log):
        return "lost a class of its own"
    return ""


def missed_subscription(log):
    """Whether a client's log shows the client's own race: it subscribed while its first metadata request, for no topics,
    was on the wire, took the answer to that for its topics' (`ClusterMetadata.update_metadata` clears `_need_update`
    whatever was asked), and asked nothing more of the broker until the test gave up."""
    asked, subscribed, missed = set(), set(), set()
    for line in log.splitlines():
        words = line.split(None, 4)
        thread = words[2] if len(words) > 2 else ""
        if "Sending metadata request " in line:
            for threads in (asked, subscribed, missed):
                threads.discard(thread)
            if "MetadataRequest(topics=[]," in line:
                asked.add(thread)
        elif "Updating subscribed topics to:" in line or "Subscribed to topic(s):" in line:
            subscribed |= asked
        elif "Updated metadata:" in line:
            asked.discard(thread)
            if thread in subscribed:
                missed.add(thread)
    return bool(missed)


def stopped_heartbeats(log):
    """Whether a client's log shows a member that was given its assignment and left its heartbeats disabled. It joined again
    because the partitions it knew of had changed, took that reason as settled once it had assigned them as the leader,
    and its `poll` ran out of time before the answer to its SyncGroup: the next one sees nothing to join for, and never
    looks at that answer (`join_group_async`). The broker removes it from the group when its session times out."""
    disabled, given = set(), set()
    for line in log.splitlines():
        words = line.split(None, 4)
        thread = words[2] if len(words) > 2 else ""
        if "Disabling heartbeat during join-group" in line:
            disabled.add(thread)
        elif "Enabling heartbeat" in line:
            disabled.discard(thread)
            given.discard(thread)
        elif "Received SyncGroup response: " in line and " error_code=0," in line and thread in disabled:
            given.add(thread)
    return bool(given)


def lost_a_class(log):
    """Whether a client's log shows that it gave up reading a response for want of the class to read it into: it keeps
    those of a version by weak references, and threads that make one at a time replace each other's
    (`ResponseClassRegistry`)."""
    return "in get_response_class\n" in log and "ReferenceError: weakly-referenced object no longer exists" in log


def judge(report, status):
    """(result, why) of one test, from its report in JUnit's form and the exit status, None at the time limit."""
    if status is None:
        return "fail", "no end within the time limit"
    cases = [] if not report else list(xml.etree.ElementTree.fromstring(report).iter("testcase"))
    if status != 0 or len(cases) != 1:
        causes = [cause for case in cases for cause in case if cause.tag in ("failure", "error")]
        return "fail", (causes[0].get("message", "").splitlines() or [""])[0] if causes else f"exit status {status}"
    skipped = cases[0].find("skipped")
    return ("pass", "") if skipped is None else ("skip", skipped.get("message", ""))
