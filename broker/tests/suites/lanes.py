"""Running tests several at a time: each lane starts brokers of its own, so that no test sees what another one does."""

import pathlib
import queue
import sys
import threading

import results

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "clients"))
# A machine that does other things beside it must not fail a test; one that hangs must not hold up the rest for long.
LIMIT_FACTOR, LIMIT_BASE_S = 3, 60
# Apache Kafka of one broker is told as much as it needs to keep its own topics.
KAFKA_SETTINGS = ("transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
                  "share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1")


def starter(binary, shards, directory):
    """A function from settings to a started broker: (process, address). 0 shards are Apache Kafka."""
    import harness
    if not shards:
        return lambda settings: start_kafka(harness, settings)
    harness.CACHE = directory

    def start(settings):
        port, told = choose_port(harness, settings)
        return harness.start_penstock(binary, shards, told, listen=f"127.0.0.1:{port}")[:2]

    return start


def start_kafka(harness, settings):
    port, told = choose_port(harness, settings)
    told = dict(setting.split("=", 1) for setting in told)
    told.pop("advertised.listeners", None)  # the harness tells Apache Kafka itself
    node_id = told.pop("node.id", 1)
    return harness.start_kafka([f"{key}={value}" for key, value in told.items()] + [*KAFKA_SETTINGS], node_id, port)


def choose_port(harness, settings):
    """The port that a broker with these settings listens on, 0 for any, and the settings with that port in them.

    Only a broker that advertises a certain port, or must be told its own, takes one that is known before it starts.
    """
    [advertised] = [setting for setting in settings if setting.startswith("advertised.listeners=")] or [None]
    if advertised is None:
        return 0, settings
    port = advertised.rsplit(":", 1)[1].replace("{port}", str(harness.free_ports(1)[0]))
    return int(port), [setting.replace("{port}", port) for setting in settings]


def run_all(suite, chosen, expected, start, jobs, cache, directory):
    """Runs the tests, the longest ones first; returns what they did by name, and what the brokers did wrong."""
    waiting, outcomes, complaints = queue.SimpleQueue(), {}, []
    for test in sorted(chosen, key=lambda test: -expected.get(test, results.UNKNOWN).seconds if jobs > 1 else 0):
        waiting.put(test)
    lanes = [Lane(suite, waiting, expected, start, cache, directory, outcomes, complaints) for _ in range(jobs)]
    for lane in lanes:
        lane.start()
    try:
        for lane in lanes:
            lane.join()
    except BaseException:
        for lane in lanes:
            lane.kill()
        raise
    complaints += [f"{test} did not run" for test in chosen if test not in outcomes]
    return {test: outcomes[test] for test in chosen if test in outcomes}, complaints


class Lane(threading.Thread):
    """Takes tests until none is left or something is wrong with its broker."""

    def __init__(self, suite, waiting, expected, start, cache, directory, outcomes, complaints):
        super().__init__(daemon=True)
        self.suite, self.waiting, self.expected, self.start_broker = suite, waiting, expected, start
        self.cache, self.directory, self.outcomes, self.complaints = cache, directory, outcomes, complaints
        self.brokers = {}

    def run(self):
        try:
            while self._run_next():
                pass
            for process, _ in self.brokers.values():
                status = process.stop()
                # A JVM that was told to end by a signal says so by its status.
                if status not in (0, 143 if "kafka.Kafka" in process.child.args else 0):
                    self.complaints.append(f"the broker ended with status {status} on SIGTERM; see {process.dir}")
                else:
                    process.remove()
        except Exception as error:
            self.complaints.append(f"{type(error).__name__}: {error}")
            self.kill()

    def kill(self):
        for process, _ in self.brokers.values():
            process.child.kill()

    def _run_next(self):
        try:
            test = self.waiting.get_nowait()
        except queue.Empty:
            return False
        want = self.expected.get(test, results.UNKNOWN)
        settings = self.suite.settings(test)
        if settings not in self.brokers:
            self.brokers[settings] = self.start_broker(settings)
        process, address = self.brokers[settings]
        limit_s = want.seconds * LIMIT_FACTOR + LIMIT_BASE_S
        outcome = self.suite.run_test(test, want, self.cache, address, self.directory, limit_s)
        self.outcomes[test] = outcome
        print(results.line(test, want, outcome), flush=True)
        if process.child.poll() is not None:
            raise RuntimeError(f"the broker ended during {test} with status {process.child.returncode}: {process.tail()}")
        return True
