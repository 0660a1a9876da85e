"""A load balancer, two agents and a Prometheus that scrapes them, on loopback."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import yaml

PATIENCE = 30.0
APP = "from http.server import *; import sys; HTTPServer(('127.0.0.1', int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()"


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def poll(what, ready):
    """Waits until `ready` says so; what it raised or returned last goes into
    the complaint."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            last = ready()
            if last is True:
                return
        except (OSError, ValueError) as err:
            last = err
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s, last: {last}")
        time.sleep(0.1)


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


class Cluster:
    def __init__(self, tidings, prometheus, deploy):
        self.directory = tempfile.TemporaryDirectory()
        self.processes = []
        http, stats, admin, gossip, web, *agents = free_ports(9)
        self.http, self.web = f"http://127.0.0.1:{http}", f"http://127.0.0.1:{web}"
        scraped = [f"127.0.0.1:{stats}"] + [f"127.0.0.1:{port}" for port in agents[:2]]
        self.metrics = [f"http://{address}/metrics" for address in scraped]
        # Its own address among those to join, as in a headless Service.
        self.start(
            tidings, "serve", "--name", "ha", "--http", f"127.0.0.1:{http}", "--stats", scraped[0],
            "--admin", f"127.0.0.1:{admin}", "--gossip", f"127.0.0.1:{gossip}", "--join", f"127.0.0.1:{gossip}",
        )
        for name, address, app in zip(["s1", "s2"], scraped[1:], map(str, agents[2:])):
            self.start(
                tidings, "agent", "--name", name, "--port", app, "--address", "127.0.0.1", "--stats", address,
                "--gossip", "127.0.0.1:0", "--join", f"127.0.0.1:{gossip}", "--", sys.executable, "-c", APP, app,
            )
        self.start(
            prometheus, f"--config.file={self.configuration(deploy, scraped)}", f"--web.listen-address=127.0.0.1:{web}",
            f"--storage.tsdb.path={self.directory.name}/data",
        )

    def start(self, *command):
        log = open(f"{self.directory.name}/{len(self.processes)}.log", "w+")
        self.processes.append((subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory.name), log))

    def configuration(self, deploy, scraped):
        """The shipped one: only who is scraped, and how often, differs."""
        directory = Path(self.directory.name)
        (directory / "alerts.yml").write_text((deploy / "alerts.yml").read_text())
        config = yaml.safe_load((deploy / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        balancers, agents = config["scrape_configs"]
        del agents["dns_sd_configs"]
        balancers["static_configs"] = [{"targets": scraped[:1]}]
        agents["static_configs"] = [{"targets": scraped[1:]}]
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    def __enter__(self):
        try:
            for url in self.metrics:
                poll(url, lambda url=url: "tidings_members" in get(url))
            poll("two servers in turn", self.both_answer)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def both_answer(self):
        get(self.http)
        families = get(self.metrics[0]).splitlines()
        served = [line for line in families if line.startswith("haproxy_server_http_responses_total") and 'code="2xx"' in line]
        return len(served) == 2 and not any(line.endswith(" 0") for line in served) or served

    def __exit__(self, kind, *_):
        for process, _ in reversed(self.processes):
            process.kill()
            process.wait()
        for process, log in self.processes:
            if kind is not None:
                log.seek(0)
                print(f"--- {process.args[0]} {process.args[1]}\n{log.read()[-4000:]}", file=sys.stderr)
            log.close()
        self.directory.cleanup()

    def api(self, path, **parameters):
        url = f"{self.web}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as err:
            raise ValueError(f"{parameters or path}: {err.read().decode()}") from None

    def ask(self, query):
        return [float(sample["value"][1]) for sample in self.api("query", query=query)["result"]]

    def says(self, query, values):
        poll(query, lambda: (answer := self.ask(query)) == values or answer)

    def everything_is_up(self):
        self.says("up", [1, 1, 1])

    def rules_are_healthy(self):
        def healthy():
            groups = self.api("rules")["groups"]
            sick = [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"]
            return bool(groups) and not sick or sick

        poll("every alert rule evaluates", healthy)

    def metric_names(self):
        return set(self.api("label/__name__/values"))
