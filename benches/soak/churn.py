"""Servers that come and go under a balancer, and operators who steer them."""

import asyncio
import os
import random
import signal
import socket

SERVERS = 6
# These are left alone, so that there is always somebody to serve.
STEADY = 2


def free_port(ip):
    with socket.socket() as probe:
        probe.bind((ip, 0))
        return probe.getsockname()[1]


class Server:
    """An app and its agent, always at the same addresses."""

    def __init__(self, binary, number, seed):
        ip = f"127.0.0.{10 + number}"
        port, gossip = free_port(ip), free_port(ip)
        self.name, self.process = f"s{number}", None
        self.command = [
            *(binary, "agent", "--name", self.name, "--address", ip, "--port", str(port)),
            *("--gossip", f"{ip}:{gossip}", "--join", seed, "--die-with-parent", "--"),
            *(binary, "demo-app", "--listen", f"{ip}:{port}", "--name", self.name, "--die-with-parent"),
        ]

    async def start(self):
        quiet = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=quiet, stderr=quiet)

    async def end(self, how):
        """Tells the agent, or kills it and with it its app."""
        if not self.process:
            return
        process, self.process = self.process, None
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(children) as listed:
            apps = [int(pid) for pid in listed.read().split()]
        process.send_signal(how)
        if how == signal.SIGKILL:
            for app in apps:
                try:
                    os.kill(app, how)
                except ProcessLookupError:
                    pass
        await process.wait()


class Churn:
    def __init__(self, binary, seed, admin, tally):
        self.servers = [Server(binary, number, seed) for number in range(1, SERVERS + 1)]
        self.admin, self.tally = admin, tally
        self.kills = self.changes = 0

    async def begin(self):
        for server in self.servers:
            await server.start()

    async def end(self):
        for server in self.servers:
            await server.end(signal.SIGKILL)

    async def come_and_go(self, pause):
        """Stops or kills a server, and starts it again."""
        while True:
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
            server = random.choice(self.servers[STEADY:])
            if random.random() < 0.5:
                await server.end(signal.SIGTERM)
            else:
                self.tally.killed = self.tally.clock()
                await server.end(signal.SIGKILL)
                self.tally.killed = self.tally.clock()
                self.kills += 1
            await asyncio.sleep(random.uniform(0, 1) * pause)
            await server.start()

    async def steer(self, pause):
        """What operators do, and take back."""
        while True:
            server = random.choice(self.servers[1:]).name
            deeds = [
                (f"set server nodes/{server} weight {random.randrange(1, 9)}", f"set server nodes/{server} weight 1"),
                (f"set server nodes/{server} state drain", f"set server nodes/{server} state ready"),
                (f"set server nodes/{server} state maint", f"set server nodes/{server} state ready"),
                ("add server nodes/extra 127.0.0.9:9 check", "set server nodes/extra state maint"),
                ("show stat; show sess; show servers state", "del server nodes/extra"),
            ]
            for command in random.choice(deeds):
                await self.say(command)
                await asyncio.sleep(random.uniform(0, 1) * pause)

    async def say(self, command):
        reader, writer = await asyncio.open_connection(*self.admin)
        writer.write(command.encode() + b"\n")
        await reader.read()
        writer.close()
        self.changes += 1
