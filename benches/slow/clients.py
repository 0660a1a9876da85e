#!/usr/bin/env python3
"""Slow clients: keeps COUNT connections to HOST:PORT open, a byte every few
seconds on each, and opens another for each that is closed. Says `ready` once
all are open, and what became of them, in JSON, when its input ends.

Of ten, six never finish a request's head (Slowloris), two never finish a
body, two never read the answer they asked for.
"""

import heapq
import json
import os
import resource
import select
import socket
import sys
import time

EVERY = 3.0
# At a steady pace: those who were opened together would also end together,
# and what is measured beside them would be the burst.
OPENED_A_SECOND = 1000

HEAD = b"GET /small HTTP/1.1\r\nhost: slow\r\nx-slow: "
BODY = b"POST /small HTTP/1.1\r\nhost: slow\r\ncontent-length: 1000000\r\n\r\n"
READ = b"GET /1m HTTP/1.1\r\nhost: slow\r\n\r\n"
KINDS = [HEAD] * 6 + [BODY] * 2 + [READ] * 2


class Siege:
    def __init__(self, address, count):
        self.address, self.count = address, count
        self.poll = select.epoll()
        self.open = {}  # descriptor: (socket, kind)
        self.due = []  # (moment, descriptor, socket)
        self.opened = self.closed = self.refused = self.told = 0
        self.began = time.monotonic()

    def fill(self):
        """Opens some of those that are missing."""
        now = time.monotonic()
        due = int((now - self.began) * OPENED_A_SECOND) - self.opened - self.refused
        if len(self.open) == self.count:
            # Nobody is owed those that were not missing.
            self.began = now - (self.opened + self.refused) / OPENED_A_SECOND
            return
        for _ in range(min(due, self.count - len(self.open))):
            client = socket.socket()
            try:
                client.settimeout(1)
                client.connect(self.address)
                kind = KINDS[self.opened % len(KINDS)]
                client.sendall(kind)
            except OSError:
                self.refused += 1
                client.close()
                return
            client.setblocking(False)
            self.opened += 1
            self.open[client.fileno()] = (client, kind)
            wanted = select.EPOLLRDHUP if kind is READ else select.EPOLLIN | select.EPOLLRDHUP
            self.poll.register(client.fileno(), wanted)
            heapq.heappush(self.due, (time.monotonic() + EVERY, client.fileno(), client))

    def close(self, number):
        client, kind = self.open.pop(number)
        try:
            self.told += kind is not READ and client.recv(64).startswith(b"HTTP/1.1 408")
        except OSError:
            pass
        self.poll.unregister(number)
        client.close()
        self.closed += 1

    def dribble(self):
        now = time.monotonic()
        while self.due and self.due[0][0] <= now:
            _, number, client = heapq.heappop(self.due)
            # The number may belong to another connection by now.
            if self.open.get(number, (None,))[0] is not client:
                continue
            try:
                if self.open[number][1] is not READ:
                    client.send(b"x")
            except OSError:
                self.close(number)
                continue
            heapq.heappush(self.due, (now + EVERY, number, client))

    def run(self):
        ready = False
        self.poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        while True:
            self.fill()
            if not ready and len(self.open) == self.count:
                ready = True
                print("ready", flush=True)
            missing = len(self.open) < self.count
            for number, _ in self.poll.poll(0.002 if missing else 0.02):
                if number == sys.stdin.fileno():
                    return
                if number in self.open:
                    self.close(number)
            self.dribble()


def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # They are not to keep those waiting who measure, on the same core.
    os.nice(19)
    host, _, port = sys.argv[1].rpartition(":")
    siege = Siege((host, int(port)), int(sys.argv[2]))
    siege.run()
    said = {"open": len(siege.open), "opened": siege.opened, "closed": siege.closed,
            "refused": siege.refused, "told": siege.told}
    print(json.dumps(said), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
