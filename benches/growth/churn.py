#!/usr/bin/env python3
"""Changes the pool of a balancer through its runtime API, so many changes a
second, due at moments that do not wait for answers.

    churn.py ADMIN_SOCKET RATE ADDRESS...

Says `ready`, begins at a line on its input, ends with its input, and says in
JSON what it did. A server goes through a round: maintenance, out of the pool,
back into it, ready, another weight, its own again; six changes. Each
connection does so with servers of its own, one after the other.
"""

import asyncio
import itertools
import json
import sys
import time

# Each change waits until the pool shows it, some milliseconds; with so many
# under way the rate is kept.
CONNECTIONS = 32


class Client:
    """A connection to the runtime API, at its prompt."""

    async def connect(self, path):
        self.reader, self.writer = await asyncio.open_unix_connection(path)
        await self.ask("prompt")
        return self

    async def ask(self, command):
        self.writer.write(command.encode() + b"\n")
        answer = await self.reader.readuntil(b"> ")
        return answer.decode().removesuffix("> ").strip()


class Churn:
    def __init__(self, path, rate, addresses):
        self.path, self.rate, self.addresses = path, rate, addresses
        self.made, self.refused, self.latest = 0, [], 0
        self.ends = False

    async def run(self):
        count = min(CONNECTIONS, len(self.addresses))
        clients = [await Client().connect(self.path) for _ in range(count)]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        self.began, self.due = time.monotonic(), itertools.count()
        work = [self.keep_changing(client, n) for n, client in enumerate(clients)]
        await asyncio.gather(self.wait_for_end(), *work)
        return {
            "seconds": self.ended - self.began,
            "made": self.made,
            "refused": len(self.refused),
            "first_refusal": next(iter(self.refused), None),
            "latest": self.latest,
        }

    async def wait_for_end(self):
        await asyncio.to_thread(sys.stdin.read)
        self.ended, self.ends = time.monotonic(), True

    async def keep_changing(self, client, n):
        servers = list(enumerate(self.addresses, 1))[n::CONNECTIONS]
        for number, address in itertools.cycle(servers):
            name = f"nodes/s{number}"
            await self.change(client, f"set server {name} state maint")
            await client.ask(f"wait 2s srv-removable {name}")
            await self.change(client, f"del server {name}", "Server deleted.")
            await self.change(client, f"add server {name} {address}", "New server registered.")
            await self.change(client, f"set server {name} state ready")
            await self.change(client, f"set server {name} weight 2")
            await self.change(client, f"set server {name} weight 1")
            # A round is ended, so that every server is there in the end.
            if self.ends:
                return

    async def change(self, client, command, expected=""):
        due = self.began + next(self.due) / self.rate
        await asyncio.sleep(max(0, due - time.monotonic()))
        answer = await client.ask(command)
        if answer != expected:
            self.refused.append(f"{command}: {answer}")
        elif not self.ends:
            self.made += 1
            self.latest = max(self.latest, time.monotonic() - due)


def main():
    path, rate, *addresses = sys.argv[1:]
    print(json.dumps(asyncio.run(Churn(path, float(rate), addresses).run())))


if __name__ == "__main__":
    main()
