#!/usr/bin/env python3
"""The runs of oha that tell something about a load balancer, as one table.

Ends with 1 if any request failed. Needs oha 1.5 or later: cargo install oha.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import Counter

from jmeter import Missing
from report import Result, table


def command(oha=None):
    """Where oha is on this machine."""
    found = shutil.which(oha or os.environ.get("OHA", "oha"))
    if found is None:
        raise Missing("no oha: cargo install oha --locked")
    return found


class Run:
    """oha at work on `url` with these further arguments."""

    def __init__(self, url, arguments, oha=None):
        # -w: with -z alone, what is under way at the end counts as aborted.
        flags = ["--no-tui", "--output-format", "json", "-w"]
        self.process = subprocess.Popen(
            [command(oha), *flags, *map(str, arguments), url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def is_running(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def report(self):
        """Waits for the end; oha's own report."""
        output, errors = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError(f"oha: {errors.strip()}")
        return json.loads(output)

    def finish(self):
        """Waits for the end; how many requests there were, and how they failed."""
        return result(self.report())


def result(report):
    """Whatever is not answered with 2xx has failed."""
    statuses = report["statusCodeDistribution"]
    kinds = Counter(report["errorDistribution"])
    kinds.update({code: count for code, count in statuses.items() if not code.startswith("2")})
    requests = sum(statuses.values()) + sum(report["errorDistribution"].values())
    return Result(requests=requests, failures=kinds.total(), kinds=kinds)


def scenarios(options):
    """Each scenario's name, URL and arguments."""
    lasts = ["-z", f"{options.seconds}s", "-c", options.connections]
    sticky = ["-H", f"Cookie: SERVERID={options.server}"]
    rate = ["-q", options.rate, "--latency-correction"]
    if options.direct:
        yield "ceiling, the server itself", options.direct, lasts
    yield "ceiling", options.url, lasts
    yield f"{options.rate} requests/s", options.url, lasts + rate
    yield f"{options.rate} requests/s, no keep-alive", options.url, lasts + rate + ["--disable-keepalive"]
    yield f"users of {options.server}", options.url, lasts + rate + sticky


def row(name, report):
    """A scenario's row of the table."""
    found = result(report)
    percentiles = report["latencyPercentiles"]
    times = [percentiles.get(name) for name in ("p50", "p99", "p99.9")]
    times = ["-" if time is None else f"{time * 1000:.2f}" for time in times]
    rate = f"{report['summary']['requestsPerSec']:.0f}"
    success = f"{100 * (1 - found.failures / max(1, found.requests)):.3f}%"
    return [name, found.requests, rate, success, *times]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1/")
    parser.add_argument("--direct", metavar="URL", help="a server, past the load balancer")
    parser.add_argument("--seconds", type=int, default=10, help="length of each run")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--rate", type=int, default=1000, help="requests/s")
    parser.add_argument("--server", default="s1", help="where the sticky users are")
    parser.add_argument("--oha", help="default: $OHA, or oha on the PATH")
    options = parser.parse_args()
    rows, failures = [], []
    try:
        for name, url, arguments in scenarios(options):
            report = Run(url, arguments, options.oha).report()
            rows.append(row(name, report))
            failures += [f"{name}: {n} × {kind}" for kind, n in result(report).kinds.items()]
    except (Missing, RuntimeError) as error:
        sys.exit(str(error))
    header = ["run", "requests", "requests/s", "success", "p50 ms", "p99 ms", "p99.9 ms"]
    print(table(header, rows))
    print("\n".join(failures), end="\n" if failures else "")
    sys.exit(1 if failures or any(not row[1] for row in rows) else 0)


if __name__ == "__main__":
    main()
