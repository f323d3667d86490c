"""Members join, leave, freeze and are killed under load, the broker is killed now and then, and nothing may be lost.

    broker/tests/clients/chaos --minutes 10 --members 24 --shards 2 [--seed N]

Ends with status 1 if anything was violated; the reports and the broker's data are kept then.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))

from churn.run import Run  # noqa: E402
from harness import CACHE, HERE  # noqa: E402


def parse(arguments):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "../../../target")).resolve()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long members come and go (default: 10)")
    parser.add_argument("--members", type=int, default=24, help="places in all groups together (default: 24)")
    parser.add_argument("--shards", type=int, default=2, help="of the broker (default: 2)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="default: a random one")
    parser.add_argument("--rate", type=int, default=400, help="records per second (default: 400)")
    parser.add_argument("--partitions", type=int, default=20, help="of the topic (default: 20)")
    parser.add_argument("--kill-every", type=float, default=35.0, help="seconds between deaths of the broker (default: 35)")
    parser.add_argument("--binary", default=target / "release" / "penstock")
    options = parser.parse_args(arguments)
    options.seconds = options.minutes * 60
    return options


def main():
    options = parse(None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # members are ended with the run
    print(f"seed {options.seed}: {options.members} members, {options.shards} shards, {options.minutes} minutes", flush=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="churn-", dir=CACHE))
    started = time.monotonic()

    def say(what):
        print(f"{time.monotonic() - started:6.1f} s: {what}", flush=True)

    run = Run(options, directory, say)
    truths = run.run()
    for line in run.lines():
        print(line)
    if truths.violation_count:
        print(f"reports and data: {directory}")
        return 1
    run.remove()
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
