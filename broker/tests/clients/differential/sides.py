"""One broker of the two, and what of its answers is compared."""

import importlib

from batches import NOW
from wire import Wire, make, parse_batches

MODULES = ("admin", "consumer", "metadata", "producer")
DROPPED = {"throttle_time_ms", "cluster_id", "host", "port", "rack", "node_endpoints", "finalized_features_epoch",
           "finalized_features", "supported_features", "log_dir"}
# Compared by whether they are set at all.
SIGNS = {"producer_id", "session_id", "controller_id", "leader_id", "broker_id", "node_id",
         "preferred_read_replica", "log_append_time_ms", "total_bytes", "usable_bytes", "last_fetch_timestamp",
         "last_caught_up_timestamp", "log_end_offset"}
LENGTHS = {"replica_nodes", "isr_nodes", "eligible_leader_replicas", "last_known_elr", "offline_replicas"}
NO_ID = ("None", "", "00000000-0000-0000-0000-000000000000")


def message_class(name):
    for module in MODULES:
        found = getattr(importlib.import_module(f"kafka.protocol.{module}"), name, None)
        if found is not None:
            return found
    raise KeyError(name)


class Side:
    """A broker, its connection, and what earlier cases left for later ones."""

    def __init__(self, address):
        self.address = address
        self.wire = None
        self.kept = {}
        answer = self.call("ApiVersions", 0)
        self.versions = {k["api_key"]: (k["min_version"], k["max_version"]) for k in answer["api_keys"]}

    def call(self, api, version, **fields):
        request = make(message_class(f"{api}Request"), version, **fields)
        if self.wire is None:
            self.wire = Wire(self.address)
        try:
            if api == "ApiVersions" and version > 0:  # kafka-python takes its errors for version 0
                self.wire.send(request)
                body = self.wire.receive_body()
                return {"error_code": int.from_bytes(body[4:6], "big", signed=True), "listed": len(body) > 32}
            return self.wire.call(request, message_class(f"{api}Response"))
        except (ConnectionError, TimeoutError) as error:
            self.wire.socket.close()
            self.wire = None
            return {"connection": type(error).__name__}

    def range_of(self, api):
        """The versions of an API that this broker serves and that can be encoded here."""
        request = message_class(f"{api}Request")
        low, high = self.versions.get(request.API_KEY, (1, 0))
        return max(low, request._valid_versions[0]), min(high, request._valid_versions[1])


def normal(value, key=None):
    """An answer without what two right brokers may say differently."""
    if isinstance(value, dict):
        # How far the metadata log is, and how often it was led anew.
        dropped = DROPPED | {"high_watermark", "leader_epoch"} if "current_voters" in value else DROPPED
        return {k: normal(v, k) for k, v in value.items() if k not in dropped}
    if key == "records":
        return [(b.base_offset, b.last_offset_delta, b.count, b.codec, b.log_append_time, b.leader_epoch)
                for b in parse_batches(value)]
    if key in LENGTHS:
        return None if value is None else len(value)
    if key in SIGNS:
        return None if value is None else "set" if value > 0 or key.endswith("_id") and value == 0 else value
    if key == "topic_id":
        return None if str(value) in NO_ID else "set"
    if key == "timestamp" and value > NOW - 1000:
        return "the records' time" if value == NOW else "the present"
    if key == "last_timestamp" and value > 0:
        return f"{value - NOW} ms after the records' time"
    if isinstance(value, (list, tuple)):
        rows = [normal(v) for v in value]
        is_set = key in ("configs", "topics", "synonyms") or rows and isinstance(rows[0], dict) and "is_future_key" in rows[0]
        return sorted(rows, key=repr) if is_set else rows
    return value


def differences(a, b, messages, path=""):
    """The leaves at which two answers differ, as (path, a, b)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            yield from differences(a.get(key, "(absent)"), b.get(key, "(absent)"), messages, f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list):
        if path.endswith("configs") and all(isinstance(x, dict) and "name" in x for x in a + b):
            yield from differences({x["name"]: x for x in a}, {x["name"]: x for x in b}, messages, path)
        elif len(a) != len(b):
            yield path, a, b
        else:
            for index, (x, y) in enumerate(zip(a, b)):
                yield from differences(x, y, messages, f"{path}[{index}]")
    elif path.endswith("_message") and not messages:
        if a and not b:  # to say more than the reference is right
            yield path, a, b
    elif a != b:
        yield path, a, b
