"""Running commands whose output is kept in a file."""

import os
import subprocess
import time


def environment(**more):
    """The environment of a test: without what would change what it does."""
    env = {key: value for key, value in os.environ.items()
           if key not in ("CI", "TEST_DEBUG", "KAFKA_PATH", "CARGO_TARGET_DIR")}
    return env | more


def run(command, cwd, env, log, limit_s):
    """(exit status, seconds) of a command; the status is None when it was ended at the time limit."""
    begin = time.monotonic()
    with open(log, "wb") as out:
        child = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            status = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            status = None
    return status, time.monotonic() - begin


def build(command, cwd, log, env=None):
    """Runs a step of a build, adding its output to `log`; ends the program where it fails."""
    with open(log, "ab") as out:
        if subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode:
            raise SystemExit(f"{' '.join(map(str, command))} failed; see {log}")
