#!/usr/bin/env python3
"""Runs tidings.jmx without a window and prints what each server answered.

Ends with 1 if any sample failed. Needs JMeter 5.x or Debian's 2.13.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from report import Result, percentile, table

HERE = Path(__file__).resolve().parent
DEBIAN = Path("/usr/share/jmeter")
REACHED = " reached"


class Missing(Exception):
    """A tool that is not installed."""


def command(jmeter=None):
    """How JMeter is started on this machine."""
    jmeter = shutil.which(jmeter or os.environ.get("JMETER", "jmeter"))
    if jmeter is None:
        raise Missing("no jmeter: apt-get install jmeter jmeter-http, or https://jmeter.apache.org")
    # Debian's 2.13 needs help to open a plan: see debian.bsh.
    if DEBIAN not in Path(jmeter).resolve().parents:
        return [jmeter]
    jars = f"{DEBIAN}/bin/ApacheJMeter.jar:{DEBIAN}/lib/*:{DEBIAN}/lib/ext/*:/usr/share/java/bsh.jar"
    settings = [f"-Djmeter.home={DEBIAN}", "-Djava.awt.headless=true"]
    return ["java", "-cp", jars, *settings, "bsh.Interpreter", str(HERE / "debian.bsh")]


class Run:
    """JMeter at work; `properties` are those of the plan."""

    def __init__(self, properties, jmeter=None):
        self.folder = Path(tempfile.mkdtemp(prefix="tidings-jmeter-"))
        self.samples = self.folder / "samples.csv"
        settings = {
            "jmeter.save.saveservice.output_format": "csv",
            "jmeter.save.saveservice.print_field_names": "true",
            "jmeter.save.saveservice.assertion_results_failure_message": "true",
            "jmeter.save.saveservice.autoflush": "true",
            **{name: value for name, value in properties.items() if value is not None},
        }
        arguments = ["-n", "-t", str(HERE / "tidings.jmx"), "-l", str(self.samples)]
        arguments += ["-j", str(self.folder / "jmeter.log")]
        arguments += [f"-J{name}={value}" for name, value in settings.items()]
        self.output = (self.folder / "output").open("w+")
        self.process = subprocess.Popen(
            command(jmeter) + arguments, stdout=self.output, stderr=subprocess.STDOUT
        )

    def is_running(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def rows(self):
        """Waits for the end; the samples, in the order they ended."""
        self.process.wait()
        rows = []
        if self.samples.exists():
            with self.samples.open(newline="") as file:
                rows = list(csv.DictReader(file))
        if not rows:
            self.output.seek(0)
            raise RuntimeError(f"JMeter took no sample:\n{self.output.read()}")
        self.output.close()
        shutil.rmtree(self.folder)
        return rows

    def finish(self):
        """Waits for the end; what the users got, and the failures of all."""
        rows = self.rows()
        visits = [row for row in rows if not row["label"].startswith("POST")]
        failed = [row for row in rows if row["success"] != "true"]
        return Result(
            requests=len(visits),
            failures=len(failed),
            servers=dict(sorted(Counter(map(server, filter(reached, visits))).items())),
            kinds=Counter(failure(row) for row in failed),
            moves=moves(visits),
        )


def reached(row):
    return row["label"].endswith(REACHED)


def server(row):
    return row["label"].removesuffix(REACHED)


def failure(row):
    answer = f"{row['responseCode']} {row['responseMessage']}"
    return row["failureMessage"] if row["responseCode"] == "200" else answer


def moves(visits):
    """How often a user was answered by another server than before."""
    homes, count = {}, 0
    for row in filter(reached, visits):
        user = row["threadName"]
        count += homes.get(user, server(row)) != server(row)
        homes[user] = server(row)
    return count


def summary(rows):
    """A line for each label: samples, errors, mean and p99 in ms."""
    labels = defaultdict(list)
    for row in rows:
        labels[row["label"]].append(row)
    for label, samples in sorted(labels.items()):
        times = [int(row["elapsed"]) for row in samples]
        errors = sum(row["success"] != "true" for row in samples)
        mean = f"{sum(times) / len(times):.1f}"
        yield label, len(samples), errors, mean, percentile(times, 0.99)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--users", type=int, default=1)
    parser.add_argument("--loops", type=int, default=1000, help="requests of each user")
    parser.add_argument("--cookies", choices=["keep", "clear"], default="keep")
    parser.add_argument("--think", type=int, default=0, help="ms between a user's requests")
    parser.add_argument("--delay", type=int, help="ms, posted to --delayed before the run")
    parser.add_argument("--delayed", default="s1", help="server that --delay is for")
    parser.add_argument("--jmeter", help="default: $JMETER, or jmeter on the PATH")
    arguments = vars(parser.parse_args())
    jmeter = arguments.pop("jmeter")
    try:
        rows = Run(arguments, jmeter).rows()
    except (Missing, RuntimeError) as error:
        sys.exit(str(error))
    print(table(["label", "samples", "errors", "mean ms", "p99 ms"], summary(rows)))
    failed = [row for row in rows if row["success"] != "true"]
    for kind, count in Counter(map(failure, failed)).items():
        print(f"{count} × {kind}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
