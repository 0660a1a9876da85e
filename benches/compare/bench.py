"""Starts what is measured and what measures, each on its core, and reads what
a proxy spent. Everything that is started here is ended here."""

import http.client
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import Setup

# Proxies on one core; load, origin and the reader of the logs on the other.
PROXY_CORE, LOAD_CORE = 0, 1


class Trouble(Exception):
    """Why something cannot be measured, in one line."""


def start(command, core, **options):
    def pin():
        os.sched_setaffinity(0, {core})

    return subprocess.Popen(command, preexec_fn=pin, **options)


def end(process):
    """Ends a process and, since it is told so, its children."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count):
    """Ports that the kernel chose and nobody else has a moment later."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def origin(tools, servers):
    """The servers; gives their addresses."""
    process = start(
        [tools / "origin", "--servers", str(servers)],
        LOAD_CORE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "\n")
        yield [line.strip() for line in lines if line]
    finally:
        end(process)
        process.stdout.close()


# --- a proxy ---------------------------------------------------------------


class Proxy:
    """A running proxy."""

    def __init__(self, peer, setup, process, sink):
        self.peer, self.setup, self.process, self.sink = peer, setup, process, sink
        self.asked = 0
        self.logged = None

    @property
    def address(self):
        return f"127.0.0.1:{self.setup.port}"

    def pids(self):
        """The process and its children."""
        found = [self.process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            found += map(int, children.split())
        return found

    def spent(self):
        """What it has spent so far."""
        cpu, user, system = 0, 0, 0
        for pid in self.pids():
            # The clock of the process, all threads, in nanoseconds
            # (clock_getcpuclockid): stat counts only in hundredths of a second.
            cpu += time.clock_gettime_ns(~pid << 3 | 2)
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(stat[11])
            system += int(stat[12])
        return Spent(time.monotonic(), cpu, user, system)

    def memory(self):
        """Resident bytes of its own (proportional set size)."""
        total = 0
        for pid in self.pids():
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss: +(\d+) kB", rollup, re.M)[1]) << 10
        return total


@dataclass(frozen=True)
class Spent:
    moment: float
    cpu: int  # nanoseconds
    user: int  # ticks
    system: int  # ticks

    def since(self, before):
        return Spent(
            self.moment - before.moment,
            self.cpu - before.cpu,
            self.user - before.user,
            self.system - before.system,
        )


@contextmanager
def proxy(peer, tools, servers, logs):
    """A proxy in front of `servers`, shown to do the work."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        port, stats_port = free_ports(2)
        setup = Setup(port, stats_port, servers, logs, Path(folder))
        errors = open(setup.folder / "stderr", "w+")
        sink = start(
            [tools / "sink"],
            LOAD_CORE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        process = start(
            peer.command(setup),
            PROXY_CORE,
            stdin=subprocess.DEVNULL,
            stdout=sink.stdin,
            stderr=errors,
        )
        # Only the proxy has the pipe now: it ends with its last writer.
        sink.stdin.close()
        sink.stdin = None
        running = Proxy(peer, setup, process, sink)
        try:
            prove(running)
            yield running
        except Trouble as trouble:
            errors.seek(0)
            said = errors.read().strip().splitlines()[-1:]
            raise Trouble(" ".join([f"{peer.title}: {trouble}", *said])) from None
        finally:
            end(process)
            running.logged = int(sink.communicate(timeout=10)[0])
            errors.close()


def prove(running):
    """Asks the proxy until it serves, and sees that it does the same work as
    the others: that all servers take their turn, that cookies are set and
    honoured, that servers learn who asked."""
    deadline = time.monotonic() + 15
    while True:
        try:
            ask(running)
            break
        except (OSError, http.client.HTTPException, Trouble) as error:
            if time.monotonic() > deadline or running.process.poll() is not None:
                raise Trouble(f"does not serve ({error})") from None
            time.sleep(0.02)
    if not running.peer.balances:
        return
    names = {f"s{n}" for n in range(1, len(running.setup.servers) + 1)}
    connection = http.client.HTTPConnection(running.address, timeout=5)
    seen = set()
    while seen != names:
        if time.monotonic() > deadline:
            raise Trouble(f"{len(names - seen)} of {len(names)} servers take no turn")
        name, head, cookie = ask(running, connection)
        if f"SERVERID={name}" not in cookie:
            raise Trouble("sets no cookie, or a wrong one")
        if "x-forwarded-for: 127.0.0.1" not in head:
            raise Trouble("does not say who asked")
        seen.add(name)
    for _ in range(3):
        name, _, cookie = ask(running, connection, {"Cookie": "SERVERID=s2"})
        if name != "s2" or cookie:
            raise Trouble("does not honour a cookie")
    connection.close()


def ask(running, connection=None, headers={}):
    """Which server answered, the head that it got, the cookie that came."""
    alone = connection is None
    if alone:
        connection = http.client.HTTPConnection(running.address, timeout=5)
    connection.request("GET", "/head", headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode("latin-1")
    if alone:
        connection.close()
    running.asked += 1
    if answer.status != 200:
        raise Trouble(f"answers with {answer.status}")
    name, _, head = body.partition("\r\n")
    return name, head.lower(), answer.getheader("Set-Cookie") or ""


# --- load ------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    spent: Spent
    answers: dict  # what load says

    @property
    def rate(self):
        """Requests a second that were answered in time."""
        return self.answers["in_time"] / self.answers["seconds"]

    @property
    def busy(self):
        """How much of its core the proxy used."""
        return self.spent.cpu / 1e9 / self.spent.moment


@contextmanager
def load(running, tools, flags, begin=lambda: None):
    """Users of `running`, and what they met. They stay connected until the
    end of the block. `begin` is called after the warm-up."""
    # A run is a few seconds; one that hangs must not hang everything.
    command = ["timeout", "60", tools / "load", "--to", running.address, *flags]
    process = start(
        command, LOAD_CORE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout.readline() != "ready\n":
            raise Trouble("does not stand the load that is to warm it up")
        begin()
        before = running.spent()
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        spent = running.spent().since(before)
        if not line:
            raise Trouble("the load ended without a word")
        answers = json.loads(line)
        running.asked += answers["before"] + answers["good"]
        yield Result(spent, answers)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def run_load(running, tools, flags):
    with load(running, tools, flags) as result:
        return result


def run_wrk(running, wrk, row, seconds):
    """A closed loop by wrk: independent of our own load, and well known."""
    before = running.spent()
    done = start(
        [
            *("timeout", "60", wrk, "-t", "1", "-c", str(row.connections)),
            *("-d", f"{seconds}s", f"http://{running.address}{row.path}"),
        ],
        LOAD_CORE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = done.communicate()[0]
    spent = running.spent().since(before)
    total = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if not total:
        raise Trouble("wrk says nothing that can be read")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    count = int(total[1])
    running.asked += count
    answers = {"good": count, "in_time": count, "seconds": float(total[2]), "failed": failed}
    return Result(spent, answers)
