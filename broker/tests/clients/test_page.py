"""The admin port's page in Debian's chromium, at a broker under load: it shows the numbers that the broker tells, in its own
words, and asks nobody else for anything."""

import json
import struct
import threading
import urllib.request
from decimal import ROUND_HALF_UP, Decimal

import pytest
from confluent_kafka import Producer, TopicPartition

from browser import Browser, path
from harness import eventually, start_penstock, unique
from reading import consumer, make_topic

SHARDS, PARTITIONS = 2, 4
STAGES = ["produce", "fetch", "receive", "decode", "mailbox", "append", "journal_write", "flush", "respond"]
TOLD = ["p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns"]

# What a reader of the page sees, in one moment: text of big numbers and of the tables' cells.
SEEN = """(() => {
  const text = node => node.textContent.trim();
  const cells = row => [...row.cells].map(text);
  return {
    big: Object.fromEntries(["in", "out", "requests"].map(key => [key, text(document.querySelector(`#series-${key} .big`))])),
    shards: [...document.querySelectorAll("#shards tbody tr")].map(cells),
    bars: [...document.querySelectorAll("#shards tbody b")].map(bar => parseFloat(bar.style.width)),
    stages: Object.fromEntries([...document.querySelectorAll("#latency tbody tr")].map(row => [row.id.slice(6), cells(row)])),
    columns: Object.fromEntries([...document.querySelectorAll("#latency tbody tr")].map(row =>
      [row.id.slice(6), [...row.querySelectorAll(".column")].map(column => Number(column.getAttribute("height")))])),
    state: text(document.getElementById("state")),
    who: text(document.getElementById("who")),
    alarm: document.getElementById("alarm").hidden ? null : text(document.getElementById("alarm")),
  };
})()"""


# ---- numbers as the page is to write them

def rounded(x, places):
    """As JavaScript rounds: the exact value, halves up."""
    return f"{Decimal(x).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):,}"


def digits(x):
    return "0" if x == 0 else rounded(x, 0 if x >= 99.95 else 1 if x >= 9.995 else 2)


def scaled(x, units):
    at = 0
    while at + 1 < len(units) and x >= 999.5:
        x, at = x / 1000, at + 1
    return (f"{int(x):,}" if at == 0 and x == int(x) else digits(x)) + units[at]


def duration(ns):
    return "–" if ns is None else scaled(ns, ["ns", "µs", "ms", "s"])


def size(n):
    return scaled(n, ["B", "kB", "MB", "GB", "TB"])


def bytes_per_second(n):
    return scaled(n, ["B/s", "kB/s", "MB/s", "GB/s"])


def per_second(n):
    return digits(n) + "/s"


# ---- a broker under load, and a browser that looks at it

class Load:
    """Produces to and consumes from one topic until it is stopped."""

    def __init__(self, bootstrap):
        self.bootstrap, self.topic = bootstrap, unique("page")
        make_topic(bootstrap, self.topic, PARTITIONS)
        self.over = threading.Event()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._produce, self._consume)]
        for thread in self.threads:
            thread.start()

    def _produce(self):
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 2})
        while not self.over.is_set():
            for partition in range(PARTITIONS):
                producer.produce(self.topic, bytes(1000), partition=partition)
            producer.poll(0)
            self.over.wait(0.002)
        producer.flush()

    def _consume(self):
        reader = consumer(self.bootstrap)
        reader.assign([TopicPartition(self.topic, partition, 0) for partition in range(PARTITIONS)])
        while not self.over.is_set():
            reader.consume(500, 0.1)
        reader.close()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


class Watched:
    """A broker, its load and the browser."""

    def __init__(self, binary, profile):
        self.process, self.bootstrap, self.admin = start_penstock(binary, SHARDS)
        self.origin, self.stopped = f"http://{self.admin}/", False
        self.load = Load(self.bootstrap)
        self.browser = Browser(profile)
        self.browser.open(self.origin)

    def get(self, page):
        with urllib.request.urlopen(self.origin + page) as answer:
            return json.load(answer)

    def seen(self):
        return self.browser.run(SEEN)

    def choose(self, name, value):
        self.browser.run(f"(() => {{ const select = document.getElementById('{name}'); select.value = '{value}'; "
                         "select.dispatchEvent(new Event('change')); })()")

    def stop(self):
        self.stopped = True
        assert self.process.stop() == 0, self.process.tail()

    def close(self):
        self.browser.close()
        self.load.stop()
        if not self.stopped:
            self.stop()
        self.process.remove()


@pytest.fixture(scope="module")
def watched(binary, tmp_path_factory):
    if path() is None:
        pytest.skip("needs chromium; broker/tests/clients/install brings it")
    watched = Watched(binary, tmp_path_factory.mktemp("profile"))
    yield watched
    watched.close()


# ---- what it shows; in this order, over the life of one broker

def expected_loads(before, now):
    """Big numbers and rows of shards that follow from two answers of /load."""
    seconds = now["uptime_s"] - before["uptime_s"]
    total = lambda name: (sum(s[name] for s in now["shards"]) - sum(s[name] for s in before["shards"])) / seconds
    big = {"in": bytes_per_second(total("appended_bytes")), "out": bytes_per_second(total("fetched_bytes")),
           "requests": per_second(total("requests"))}
    rows = []
    for then, shard in zip(before["shards"], now["shards"]):
        rate = lambda name: (shard[name] - then[name]) / seconds
        busy = min(1, (shard["cpu_ns"] - then["cpu_ns"]) / 1e9 / seconds)
        rows.append([str(shard["shard"]), rounded(busy * 100, 0) + " %", per_second(rate("requests")),
                     bytes_per_second(rate("appended_bytes")), bytes_per_second(rate("fetched_bytes")),
                     *(f"{shard[name]:,}" for name in ("connections", "partitions", "in_flight", "mailbox")),
                     size(shard["unsettled_bytes"])])
    return big, rows


def test_throughput_and_load_are_what_the_broker_tells(watched):
    last = []

    def agrees():
        bodies = watched.browser.bodies(watched.origin + "load")
        if len(bodies) < 2:
            return None
        before, now = bodies
        big, rows = expected_loads(before, now)
        seen = watched.seen()
        last[:] = [(seen["big"], seen["shards"]), (big, rows)]
        moving = sum(shard["appended_bytes"] for shard in now["shards"]) > sum(s["appended_bytes"] for s in before["shards"])
        return moving and seen["state"] == "live" and seen["big"] == big and seen["shards"][:-1] == rows and (seen, now)

    try:
        seen, told = eventually(agrees, "the page shows what it was told")
    except AssertionError:
        raise AssertionError(f"(seen, told): {last}") from None
    assert seen["alarm"] is None
    topics = "1 topic" if told["topics"] == 1 else f"{told['topics']} topics"
    assert seen["who"].startswith(f"{watched.bootstrap} · {SHARDS} shards · {topics} · ")
    # The bars are as long as the numbers beside them say.
    for row, bar in zip(seen["shards"], seen["bars"]):
        assert abs(bar - float(row[1].removesuffix(" %"))) <= 0.51, (row, bar)


def test_a_picture_in_light_and_in_dark(watched, tmp_path):
    pictures = {}
    eventually(lambda: all(watched.seen()["columns"][stage] for stage in STAGES), "each stage has a distribution")
    for scheme in ("light", "dark"):
        watched.browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        ground = watched.browser.run("getComputedStyle(document.documentElement).backgroundColor")
        watched.browser.picture(tmp_path / f"{scheme}.png")
        pictures[scheme] = (ground, (tmp_path / f"{scheme}.png").read_bytes())
    assert pictures["light"][0] != pictures["dark"][0]
    for _, picture in pictures.values():
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG") and width >= 1000 and height >= 900 and len(picture) > 30_000
    # Nothing is wider than the window, with few shards or many.
    assert watched.browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_latencies_are_what_the_broker_tells(watched):
    watched.load.stop()
    watched.choose("span", "since_start")
    for of in ("all", *range(SHARDS)):
        watched.choose("of", of)
        last = []

        def agrees():
            told = watched.get("histograms")
            stages = (told if of == "all" else told["shards"][of])["stages"]
            seen = watched.seen()
            rows = {}
            for stage in STAGES:
                numbers = stages[stage]["since_start"]
                rows[stage] = [f"{numbers['count']:,}", *(duration(numbers[name]) for name in TOLD)]
            shown = {stage: cells[1:7] for stage, cells in seen["stages"].items()}
            last[:] = [shown, rows]
            return shown == rows and (stages, seen)

        try:
            stages, seen = eventually(agrees, "the page shows what it was told")
        except AssertionError:
            raise AssertionError(f"of {of} (seen, told): {last}") from None
        for stage in STAGES:
            buckets = stages[stage]["since_start"]["buckets"]
            heights = seen["columns"][stage]
            if not any(100 < bucket["le_ns"] <= 10**10 for bucket in buckets):
                continue
            assert len(heights) == len({min(max(bucket["le_ns"], 126), 10**10) for bucket in buckets}), stage
            most = max(bucket["count"] for bucket in buckets)
            if buckets[0]["le_ns"] > 126 and buckets[-1]["le_ns"] < 10**10:
                for height, bucket in zip(heights, buckets):
                    assert abs(height - max(1, 30 * bucket["count"] / most)) < 0.01, (stage, bucket)
    counts = {stage: watched.get("histograms")["stages"][stage]["since_start"]["count"] for stage in STAGES}
    assert all(counts.values()), counts


def test_nobody_else_is_asked_and_nothing_is_complained_of(watched):
    browser = watched.browser
    assert browser.complaints == []
    asked = set(browser.requests.values())
    assert {watched.origin, watched.origin + "load", watched.origin + "histograms"} <= asked
    assert all(url.startswith(watched.origin) or url == "data:," for url in asked), asked


@pytest.mark.parametrize("directive, attempt", (
    ("connect-src", "fetch('http://127.0.0.1:9/').catch(() => {})"),
    ("img-src", "new Image().src = 'http://127.0.0.1:9/'"),
    ("script-src-elem", "document.head.append(Object.assign(document.createElement('script'), {src: 'http://127.0.0.1:9/'}))"),
    ("style-src-elem",
     "document.head.append(Object.assign(document.createElement('link'), {rel: 'stylesheet', href: 'http://127.0.0.1:9/'}))"),
))
def test_the_policy_forbids_what_comes_from_elsewhere(watched, directive, attempt):
    stopped = watched.browser.run(
        "new Promise(resolve => { document.addEventListener('securitypolicyviolation', "
        f"event => resolve(event.effectiveDirective), {{once: true}}); {attempt}; }})")
    assert stopped == directive


def test_it_says_when_the_broker_does_not_answer(watched):
    watched.load.stop()
    watched.stop()
    seen = eventually(lambda: (lambda now: now["state"] == "no answer" and now)(watched.seen()), "the loss is told")
    assert seen["alarm"].startswith("The broker has not answered since ")
    assert watched.browser.run("document.querySelector('main').className") == "stale"
    assert watched.browser.run("document.title") == "No answer – Penstock"
