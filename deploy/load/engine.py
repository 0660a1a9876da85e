"""What runs the servers: a Docker engine, or processes of this machine.

Both start, stop, kill and pause a server by its name.
"""

import os
import random
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

APP = Path(__file__).resolve().parent.parent / "webapp" / "app.js"


class Docker:
    """Servers are containers of `image` in `network`; those that this made are
    removed in the end."""

    def __init__(self, network, image, docker="docker", arguments=()):
        self.network, self.image = network, image
        self.docker, self.arguments = docker, list(arguments)
        self.made = []

    def _run(self, *arguments):
        done = subprocess.run([self.docker, *arguments], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def start(self, name):
        if name in self._run("ps", "-a", "--format", "{{.Names}}").split():
            self._run("start", name)
            return
        identity = ["--network", self.network, "--name", name]
        self._run("run", "-d", *identity, *self.arguments, self.image)
        self.made.append(name)

    def stop(self, name):
        self._run("stop", name)

    def kill(self, name):
        self._run("kill", name)

    def pause(self, name):
        self._run("pause", name)

    def resume(self, name):
        self._run("unpause", name)

    def close(self):
        if self.made:
            self._run("rm", "-f", *self.made)


class Local:
    """A load balancer and servers as processes, on free ports of loopback."""

    def __init__(self, tidings):
        self.tidings = tidings
        self.folder = Path(tempfile.mkdtemp(prefix="tidings-load-"))
        self.http_port, self.stats_port, self.admin_port, self.gossip_port = free_ports(4)
        self.ports, self.agents = {}, {}
        listen = {
            "http": self.http_port,
            "stats": self.stats_port,
            "admin": self.admin_port,
            "gossip": self.gossip_port,
        }
        flags = [f"--{name}=127.0.0.1:{port}" for name, port in listen.items()]
        self.balancer = self._spawn("ha", [tidings, "serve", "--name", "ha", *flags])

    def _spawn(self, name, command, **environment):
        with (self.folder / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                # Ctrl-C is for whoever runs this, which then ends them.
                start_new_session=True,
            )

    def start(self, name):
        if name not in self.ports:
            self.ports[name] = free_ports(1)[0]
        port = str(self.ports[name])
        gossip = ["--gossip=127.0.0.1:0", f"--join=127.0.0.1:{self.gossip_port}"]
        agent = [self.tidings, "agent", "--name", name, "--port", port, *gossip]
        command = [*agent, "--", "node", str(APP)]
        self.agents[name] = self._spawn(name, command, PORT=port, TAG=name)

    def stop(self, name):
        agent = self.agents.pop(name)
        agent.terminate()
        agent.wait()

    def kill(self, name):
        agent = self.agents.pop(name)
        # The agent first: as PID 1 of a container it takes the app with it.
        for pid in self._processes(agent):
            os.kill(pid, signal.SIGKILL)
        agent.wait()

    def pause(self, name):
        for pid in self._processes(self.agents[name]):
            os.kill(pid, signal.SIGSTOP)

    def resume(self, name):
        for pid in self._processes(self.agents[name]):
            os.kill(pid, signal.SIGCONT)

    def _processes(self, agent):
        try:
            tasks = Path(f"/proc/{agent.pid}/task").iterdir()
            apps = [pid for task in tasks for pid in (task / "children").read_text().split()]
        except FileNotFoundError:
            apps = []
        return [agent.pid, *map(int, apps)]

    def close(self):
        for name in list(self.agents):
            self.kill(name)
        self.balancer.kill()
        self.balancer.wait()


def free_ports(count):
    """Ports that nobody listens at, and that no outgoing connection is given,
    so that a server finds its own free when it comes back."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(20_000, 30_000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        ports.add(port)
    return list(ports)
