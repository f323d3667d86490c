"""Runs a driver in another language, which prints `pass NAME` or `fail NAME why` for each of its checks."""

import subprocess
from collections import namedtuple

from harness import BASE_MS

Run = namedtuple("Run", "results prefix")
Run.__doc__ = "What a driver said of each check ('' for a pass), and the prefix of its topics' names."


def run_driver(command, broker, prefix, deadline_s=240, **kwargs):
    arguments = [broker.bootstrap, prefix, str(BASE_MS), broker.no_auto or ""]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=deadline_s, **kwargs)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    results = {}
    for line in done.stdout.splitlines():
        words = line.split(" ", 2)
        if words[0] in ("pass", "fail"):
            results[words[1]] = "" if words[0] == "pass" else words[2]
    return Run(results, prefix)
