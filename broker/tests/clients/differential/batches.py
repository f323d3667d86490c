"""Record batches, whole and broken, byte by byte."""

import struct
import time
import zlib

from kafka.record.util import calc_crc32c

# The records' own time is not the present, so that the two are told apart.
NOW = int(time.time()) * 1000 - 3_600_000


def varint(n):
    n = (n << 1) ^ (n >> 63)
    out = bytearray()
    while n & ~0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def record(offset_delta, timestamp_delta=0, key=b"k", value=b"v", headers=(), attributes=0):
    def field(data):
        return varint(-1) if data is None else varint(len(data)) + data
    body = struct.pack("b", attributes) + varint(timestamp_delta) + varint(offset_delta) + field(key) + field(value)
    body += varint(len(headers)) + b"".join(field(name) + field(value) for name, value in headers)
    return varint(len(body)) + body


def batch(records=None, now_ms=0, **changes):
    """A batch of the given records (one by default); any field of its header may be given another value."""
    records = [record(0)] if records is None else records
    body = b"".join(records)
    if changes.pop("gzip", False):
        packer = zlib.compressobj(wbits=31)
        body = packer.compress(body) + packer.flush()
        changes.setdefault("attributes", 1)
    body = changes.pop("body", body)
    header = {
        "base_offset": 0, "leader_epoch": -1, "magic": 2, "attributes": 0, "last_offset_delta": len(records) - 1,
        "base_timestamp": now_ms, "max_timestamp": now_ms, "producer_id": -1, "producer_epoch": -1, "sequence": -1,
        "count": len(records), "crc": None, "length": None,
    }
    unknown = set(changes) - set(header)
    assert not unknown, unknown
    header.update(changes)
    after_crc = struct.pack(
        ">hiqqqhii", header["attributes"], header["last_offset_delta"], header["base_timestamp"],
        header["max_timestamp"], header["producer_id"], header["producer_epoch"], header["sequence"],
        header["count"]) + body
    crc = calc_crc32c(after_crc) if header["crc"] is None else header["crc"]
    length = len(after_crc) + 9 if header["length"] is None else header["length"]
    return struct.pack(
        ">qiibI", header["base_offset"], length, header["leader_epoch"], header["magic"], crc) + after_crc


def legacy_message(magic):
    """A message set of format 0 or 1."""
    body = struct.pack(">bb", magic, 0) + (struct.pack(">q", 0) if magic == 1 else b"")
    body += struct.pack(">i", -1) + struct.pack(">i", 1) + b"v"
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message
