"""What the broker says of a group and of the log, by raw requests: no client's state stands between, and none waits."""

from kafka.protocol.consumer import ListOffsetsRequest, ListOffsetsResponse, OffsetFetchRequest, OffsetFetchResponse

from harness import eventually
from wire import Wire, make

# In this time a broker that has just started answers everything.
ANSWER_S = 60
# One answer: a broker that holds it back longer is asked anew, on another connection.
PATIENCE_S = 10
LATEST = -1


class NotYet(Exception):
    """An error code; the broker may just have started."""


def asked(address, ask, what):
    """The answer to `ask(wire)`, asked again while there is none."""

    def probe():
        try:
            with Wire(address, PATIENCE_S) as wire:
                return [ask(wire)]
        except (OSError, NotYet):
            return None

    return eventually(probe, what, ANSWER_S)[0]


def offsets_of(address, group, topic, partitions):
    """The group's committed offsets; 0 where there is none."""

    def ask(wire):
        request = make(OffsetFetchRequest, 5, group_id=group,
                       topics=[{"name": topic, "partition_indexes": list(range(partitions))}])
        answer = wire.call(request, OffsetFetchResponse)
        if answer["error_code"]:
            raise NotYet(answer)
        found = answer["topics"][0]["partitions"]
        if any(each["error_code"] for each in found):
            raise NotYet(answer)
        offsets = {each["partition_index"]: each["committed_offset"] for each in found}
        return [max(0, offsets[p]) for p in range(partitions)]

    return asked(address, ask, f"offsets of {group}")


def ends_of(address, topic, partitions):
    """The log's ends."""

    def ask(wire):
        wanted = [{"partition_index": p, "timestamp": LATEST} for p in range(partitions)]
        request = make(ListOffsetsRequest, 5, replica_id=-1, topics=[{"name": topic, "partitions": wanted}])
        found = wire.call(request, ListOffsetsResponse)["topics"][0]["partitions"]
        if any(each["error_code"] for each in found):
            raise NotYet(found)
        offsets = {each["partition_index"]: each["offset"] for each in found}
        return [offsets[p] for p in range(partitions)]

    return asked(address, ask, f"ends of {topic}")
