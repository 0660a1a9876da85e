"""The load balancer under load, as its users reach it."""

import csv
import http.client
import json
import socket
import time

POLL = 0.01  # s
PATIENCE = 30  # s that the pool may take to be as it should


class Balancer:
    """Its ports: requests, statistics, runtime commands."""

    def __init__(self, host, http_port, stats_port, admin_port, backend="nodes"):
        self.host = host
        self.http_port, self.stats_port, self.admin_port = http_port, stats_port, admin_port
        self.backend = backend
        # The most requests that each server was seen to have had: who has left
        # is not in the statistics any more.
        self.counts = {}

    @property
    def url(self):
        return f"http://{self.host}:{self.http_port}/"

    def servers(self):
        """The servers' rows of the statistics, by name."""
        _, _, body = ask(self.host, self.stats_port, "GET", "/;csv")
        rows = csv.DictReader(body.decode().removeprefix("# ").splitlines())
        mine = {
            row["svname"]: row
            for row in rows
            if row["pxname"] == self.backend and row["svname"] not in ("FRONTEND", "BACKEND")
        }
        for name, row in mine.items():
            self.counts[name] = max(self.counts.get(name, 0), int(row["stot"]))
        return mine

    def up(self):
        """Names of the servers that take new users, with all of their share."""
        rows = self.servers().items()
        return {name for name, row in rows if row["status"] == "UP" and row["throttle"] in ("", "100")}

    def total(self):
        """Requests that all servers have had."""
        self.servers()
        return sum(self.counts.values())

    def command(self, line):
        """A command of the runtime API, which is silent about success."""
        with socket.create_connection((self.host, self.admin_port), timeout=5) as admin:
            admin.sendall(f"{line}\n".encode())
            admin.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: admin.recv(4096), b"")).decode().strip()
        if "Permission denied" in answer:
            raise RuntimeError(f"{line}: {answer}; run the load balancer with --admin-level admin")
        if answer:
            raise RuntimeError(f"{line}: {answer}")

    def set_state(self, server, state):
        self.command(f"set server {self.backend}/{server} state {state}")

    def set_weight(self, server, weight):
        self.command(f"set weight {self.backend}/{server} {weight}")

    def set_delay(self, server, delay):
        """Slows a server's app down, in ms."""
        body, cookie = json.dumps({"delay": delay}), f"SERVERID={server}"
        status, headers, _ = self.ask("POST", "/delay", body, cookie)
        moved = "SERVERID=" in (headers.get("Set-Cookie") or "")
        if status != 200 or moved:
            raise RuntimeError(f"POST /delay did not reach {server}: {status}")

    def ask(self, method, path, body=None, cookie=""):
        """One request of a user: status, headers, body."""
        headers = {"Cookie": cookie, "Content-Type": "application/json"}
        return ask(self.host, self.http_port, method, path, body, headers)


def ask(host, port, method, path, body=None, headers=None):
    """A request on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def wait(what, holds, patience=PATIENCE):
    """Waits until `holds()`."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > patience:
            raise TimeoutError(f"not so within {patience} s: {what}")
        time.sleep(POLL)
