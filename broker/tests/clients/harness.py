"""What every test of the suite uses: the broker under test, the records that are sent, and reading them back.

No test waits for a length of time to have passed: `eventually` polls until a deadline.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections import namedtuple

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("PENSTOCK_CLIENTS_DIR", HERE / "../../../target/clients")).resolve()
DEADLINE_S = 60
# The first record's timestamp: recent, so that no retention or bound on timestamps touches the records.
BASE_MS = int(time.time()) * 1000 - 3_600_000


def eventually(probe, what, deadline_s=DEADLINE_S):
    """The first true value of `probe()`, polled until the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def unique(stem):
    """A topic name that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


class Process:
    """A server of ours: its first matching line of output tells that it serves; it is ended by its own handle."""

    def __init__(self, command, ready, env=None):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="broker-", dir=CACHE))
        self.log = self.dir / "stderr"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [str(part).replace("{dir}", str(self.dir)) for part in command],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=env,
            )
        self.ready_line = self._await_line(ready)

    def _await_line(self, ready):
        found, lines = threading.Event(), []

        def pump():  # reads on for the child's whole life, so that it never blocks on a full pipe
            for raw in self.child.stdout:
                line = raw.decode(errors="replace").strip()
                if not found.is_set() and ready(line):
                    lines.append(line)
                    found.set()
            found.set()

        threading.Thread(target=pump, daemon=True).start()
        if not found.wait(DEADLINE_S) or not lines:
            self.child.kill()
            self.child.wait()
            raise RuntimeError(f"{self.child.args[0]} did not start:\n{self.tail()}")
        return lines[0]

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])

    def stop(self):
        """Asks it to end, and returns its exit status."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise RuntimeError(f"{self.child.args[0]} ignored SIGTERM:\n{self.tail()}") from None

    def remove(self):
        """Removes its directory, with its data and what it said; that of a broker that failed stays for a look."""
        shutil.rmtree(self.dir)


Broker = namedtuple("Broker", "bootstrap is_kafka no_auto")
Broker.__doc__ = """A broker under test. `no_auto`: the address of a second one that creates no topics by itself, or None."""


def start_penstock(binary, shards, settings=(), data="{dir}/data", listen="127.0.0.1:0"):
    """Starts `penstock serve`, on ports from the kernel unless told otherwise; returns (process, kafka address, admin address)."""
    sets = [part for setting in settings for part in ("--set", setting)]
    process = Process(
        [binary, "serve", "--listen", listen, "--admin", "127.0.0.1:0", "--data-dir", data,
         "--shards", shards, *sets],
        ready=lambda line: line.startswith("ready "),
    )
    words = dict(word.split("=", 1) for word in process.ready_line.split()[1:])
    assert words["shards"] == str(shards)
    return process, words["kafka"], words["admin"]


KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id={node_id}
controller.quorum.voters={node_id}@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={dir}/data
offsets.topic.replication.factor=1
{settings}
"""


def start_kafka(settings=(), node_id=1, port=0):
    """Starts Apache Kafka itself, for calibration, from the jars of the Java tools; returns (process, address)."""
    free, controller = free_ports(2)
    port = port or free
    conf = pathlib.Path(tempfile.mkdtemp(prefix="conf-", dir=CACHE))
    properties = conf / "server.properties"
    properties.write_text(KAFKA_PROPERTIES.format(
        port=port, controller=controller, dir=conf, node_id=node_id, settings="\n".join(settings)))
    jvm = ["java", "-Xmx1g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
           "-Dorg.slf4j.simpleLogger.logFile=System.out", "-cp", f"{CACHE}/jars/*"]
    subprocess.run([*jvm, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", properties],
                   check=True, stdout=subprocess.DEVNULL)
    process = Process([*jvm, "kafka.Kafka", properties], ready=lambda line: "Kafka Server started" in line)
    process.remove()
    process.dir = conf
    process.log = properties
    return process, f"127.0.0.1:{port}"


def free_ports(count):
    import socket
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


# ---- records -------------------------------------------------------------------------------------------------------

Rec = namedtuple("Rec", "partition offset timestamp key value headers")
Rec.__doc__ = """One record as read: `headers` is a tuple of (str, bytes or None)."""

COUNT = 300
PARTITIONS = 2


def payload(tag, i):
    """The value of record i of the stream `tag`; the drivers in Java and JavaScript make the same."""
    if i % 25 == 24:
        return None
    if i % 25 == 12:
        return b""
    return f"{tag}:{i}:{'abcdefghij' * (i * 131 % 200)}".encode()


def key_of(i):
    return None if i % 10 == 0 else f"k{i % 7}".encode()


def headers_of(i, null_headers=True):
    if i % 5:
        return ()
    return (("h", str(i).encode()), ("empty", b""), *((("null", None),) if null_headers else ()))


def stream(tag, null_headers=True):
    """The records of a stream, as they must be read: record i goes to partition i % 2 at BASE_MS + i seconds.

    Not every client can send a header without a value.
    """
    return [
        Rec(i % PARTITIONS, i // PARTITIONS, BASE_MS + i * 1000, key_of(i), payload(tag, i),
            headers_of(i, null_headers))
        for i in range(COUNT)
    ]


def of_partition(records, partition):
    return [r for r in records if r.partition == partition]


def in_order(records):
    return sorted(records, key=lambda r: (r.partition, r.offset))


def assert_same(got, want):
    """Equal record by record; a difference is reported by its first record, not by everything."""
    got, want = in_order(got), in_order(want)
    for index, (a, b) in enumerate(zip(got, want)):
        assert a == b, f"record {index}: got {short(a)}, want {short(b)}"
    assert len(got) == len(want)


def short(rec):
    return rec._replace(value=rec.value if rec.value is None else rec.value[:60])
