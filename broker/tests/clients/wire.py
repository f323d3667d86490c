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


def make(request_class, version, **fields):
    """A request from nested dicts: fields left out have their defaults, those of other versions are left out."""
    def value_of(owner, name, value):
        field = owner.fields[name]
        if value is None or not (field.is_struct() or field.is_struct_array()):
            return value
        data_class = getattr(owner, field.type_str)
        return struct_of(data_class, value) if field.is_struct() else [struct_of(data_class, v) for v in value]

    def struct_of(data_class, values):
        unknown = set(values) - set(data_class.fields)
        assert not unknown, f"no such fields of {data_class.__name__}: {unknown}"
        return data_class(version=version, **{
            name: value_of(data_class, name, v) for name, v in values.items()
            if data_class.fields[name].for_version_q(version)})

    return struct_of(request_class, fields)


class Wire:
    """One connection that sends requests of chosen versions."""

    def __init__(self, address, timeout_s=20):
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
        body = self.receive_body()
        (correlation_id,) = struct.unpack(">i", body[:4])
        assert correlation_id == self.correlation_id, "answers come in the order of the requests"
        return response_class.decode(io.BytesIO(body), version=version, header=True).to_dict(json=False)

    def receive_body(self):
        """The next response's bytes, from its correlation id on."""
        (length,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(length)

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


def fetch(wire, topic, partition, offset, version=11, max_bytes=1 << 24):
    """One partition's answer to a Fetch by topic name."""
    wanted = {"partition": partition, "fetch_offset": offset, "partition_max_bytes": max_bytes}
    request = make(FetchRequest, version, max_bytes=max_bytes, session_epoch=-1,
                   topics=[{"topic": topic, "partitions": [wanted]}])
    return wire.call(request, FetchResponse)["responses"][0]["partitions"][0]


def list_offset(wire, topic, partition, timestamp, version=5):
    """One partition's answer to ListOffsets."""
    wanted = {"partition_index": partition, "timestamp": timestamp}
    request = make(ListOffsetsRequest, version, replica_id=-1, topics=[{"name": topic, "partitions": [wanted]}])
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


def packed_codecs(address, topic):
    """The codecs of a topic's stored batches of several records.

    A single record may gain nothing by a codec, and then librdkafka and the Python clients send it without; whether
    one travels alone depends on how busy the machine is.
    """
    return {b.codec for p in (0, 1) for b in stored_batches(address, topic, p) if b.count > 1}
