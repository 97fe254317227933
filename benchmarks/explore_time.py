"""The main job cold, as a newcomer runs it: wall seconds of `perfmodel explore` in a process of its own, no compilation cache.

Goal: at most 60 s on two cores, compilation included. Keeps the summary of the run without the points of its front.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

from _common import arguments, report


def main():
    args = arguments("Wall seconds of `perfmodel explore`, cold")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "search.cli", "explore", "--out", folder, "--json"],
            env=os.environ | {"PERFMODEL_NO_CACHE": "1"}, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        wall_s = time.perf_counter() - start
    summary = json.loads(done.stdout)
    points = len(summary.pop("front"))
    lines = [
        f"perfmodel explore: {wall_s:.1f} s cold, {summary['evaluations']} evaluations, {points} points on the front"
    ]
    report("explore_time", args, {"wall_s": wall_s, "points": points, **summary}, lines)


if __name__ == "__main__":
    main()
