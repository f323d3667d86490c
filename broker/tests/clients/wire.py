"""Raw requests, encoded by kafka-python's message classes, and the batches as the broker stores them.

Clients hide what this shows: the codec and the producer fields of the stored batches, and each answer's exact codes.
"""

import io
import socket
import struct
from collections import namedtuple

from kafka.protocol.consumer import FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

Stored = namedtuple(
    "Stored",
    "base_offset leader_epoch magic codec log_append_time transactional last_offset_delta base_timestamp"
    " max_timestamp producer_id producer_epoch base_sequence count",
)
Stored.__doc__ = "The header of one stored record batch."


class Wire:
    """One connection that sends requests of chosen versions."""

    def __init__(self, address, timeout_s=30):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.correlation_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, request):
        """Sends a request that was made with `version=`."""
        self.correlation_id += 1
        request.with_header(correlation_id=self.correlation_id, client_id="wire")
        self.socket.sendall(request.encode(header=True, framed=True))

    def receive(self, response_class, version):
        """The next response, as nested dicts and lists."""
        (length,) = struct.unpack(">i", self._exactly(4))
        body = self._exactly(length)
        (correlation_id,) = struct.unpack(">i", body[:4])
        assert correlation_id == self.correlation_id, "answers come in the order of the requests"
        return response_class.decode(io.BytesIO(body), version=version, header=True).to_dict(json=False)

    def call(self, request, response_class):
        self.send(request)
        return self.receive(response_class, request.API_VERSION)

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the broker closed the connection")
            data += part
        return bytes(data)


def fetch(wire, topic, partition, offset, version=11, max_bytes=1 << 24, max_wait_ms=0):
    """One partition's answer to a Fetch by topic name."""
    Topic = FetchRequest.FetchTopic
    request = FetchRequest(
        version=version, replica_id=-1, max_wait_ms=max_wait_ms, min_bytes=0, max_bytes=max_bytes, isolation_level=0,
        session_id=0, session_epoch=-1, forgotten_topics_data=[], rack_id="",
        topics=[Topic(topic=topic, partitions=[Topic.FetchPartition(
            partition=partition, current_leader_epoch=-1, fetch_offset=offset, last_fetched_epoch=-1,
            log_start_offset=-1, partition_max_bytes=max_bytes)])],
    )
    answer = wire.call(request, FetchResponse)
    return answer["responses"][0]["partitions"][0]


def list_offset(wire, topic, partition, timestamp, version=5):
    """One partition's answer to ListOffsets."""
    Topic = ListOffsetsRequest.ListOffsetsTopic
    request = ListOffsetsRequest(
        version=version, replica_id=-1, isolation_level=0,
        topics=[Topic(name=topic, partitions=[Topic.ListOffsetsPartition(
            partition_index=partition, current_leader_epoch=-1, timestamp=timestamp, max_num_offsets=1)])])
    return wire.call(request, ListOffsetsResponse)["topics"][0]["partitions"][0]


def parse_batches(records):
    """The headers of the whole batches in a Fetch answer's records."""
    found, at = [], 0
    records = bytes(records or b"")
    while at + 61 <= len(records):
        base, length, epoch, magic, _crc, attributes, last, first_ms, max_ms, pid, pepoch, seq, count = (
            struct.unpack_from(">qiibIhiqqqhii", records, at))
        if at + 12 + length > len(records):
            break
        found.append(Stored(base, epoch, magic, CODECS[attributes & 7], bool(attributes & 8), bool(attributes & 16),
                            last, first_ms, max_ms, pid, pepoch, seq, count))
        at += 12 + length
    return found


def stored_batches(address, topic, partition):
    """The headers of all batches of a partition, from its log start offset."""
    with Wire(address) as wire:
        offset = list_offset(wire, topic, partition, -2)["offset"]
        end = list_offset(wire, topic, partition, -1)["offset"]
        found = []
        while offset < end:
            answer = fetch(wire, topic, partition, offset)
            assert answer["error_code"] == 0, answer
            batches = parse_batches(answer["records"])
            assert batches, f"nothing at offset {offset} of {end}"
            found += batches
            offset = batches[-1].base_offset + batches[-1].last_offset_delta + 1
        return found
