"""Reports: files to which a process appends a line for each thing that it saw, before it does anything that follows from it.

What a killed process wrote stays in its file. Lines are words: `a PARTITION OFFSET NUMBER` a record was acknowledged to
the producer, `r PARTITION OFFSET NUMBER` it was consumed, `c PARTITION OFFSET` its commit was acknowledged. Java's
VerifiableConsumer writes JSON instead: it also tells of commits that it gave up for a rebalance, `u PARTITION OFFSET`.
Anything else is for people to read.
"""

import json
import os


def writer(path):
    """Appends lines, all of one call at once."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(lines):
        data = "".join(f"{line}\n" for line in lines).encode()
        while data:
            data = data[os.write(file, data):]

    return write


class Report:
    """Reads on where it stopped."""

    def __init__(self, path, take):
        """`take(kind, *numbers)` gets each line's words."""
        self._path = path
        self._take = take
        self._at = 0

    def read(self):
        try:
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return
        whole = data[:data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            if line.startswith(b"{"):
                self._take_json(json.loads(line))
            elif line[:2] in (b"a ", b"r ", b"c "):
                kind, *numbers = line.split()
                self._take(kind.decode(), *map(int, numbers))

    def _take_json(self, event):
        if event["name"] == "record_data":
            self._take("r", event["partition"], event["offset"], int(event["value"]))
        elif event["name"] == "offsets_committed":
            rebalancing = "undergoing a rebalance" in event.get("error", "")
            for each in event["offsets"] if event["success"] or rebalancing else []:
                self._take("c" if event["success"] else "u", each["partition"], each["offset"])
