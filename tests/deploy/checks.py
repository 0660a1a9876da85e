"""The checks of deploy/, one function each. See tests/deploy/run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
KUBERNETES = DEPLOY / "kubernetes"
DASHBOARD = DEPLOY / "grafana/dashboards/tidings.json"

# `preStop: sleep` is on by default from the first; the second is the newest.
KUBERNETES_VERSIONS = ["1.30", "1.37"]
# Out of 10, as systemd reckons it; less is better.
MOST_EXPOSURE = {"tidings.service": 1.4, "tidings-agent@webapp.service": 1.1}


class Skip(Exception):
    """The check cannot be made here, and what it takes."""


class Failure(Exception):
    """The check was made and says no."""


def demand(holds, what):
    if not holds:
        raise Failure(what)


def need(tool, package):
    found = shutil.which(tool)
    if not found:
        raise Skip(f"needs {tool} ({package})")
    return found


def need_module(name):
    try:
        return __import__(name)
    except ImportError:
        raise Skip(f"needs the Python module {name} (tests/deploy/requirements.txt)") from None


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    said = (done.stdout + done.stderr).strip()
    demand(done.returncode == 0, f"{' '.join(map(str, command))}\n{said}")
    return said


def documents(path):
    return [d for d in need_module("yaml").safe_load_all(path.read_text()) if d]


# === containers ===


def compose_spec():
    need_module("check_jsonschema")
    schema = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    run(*schema, DEPLOY / "compose.yaml", DEPLOY / "swarm.yaml")


def compose_of_old():
    """docker-compose 1.29, which some distributions still have."""
    run(need("docker-compose", "Debian: docker-compose"), "-f", DEPLOY / "compose.yaml", "config")


def compose_builds_from_what_is_there():
    (compose,) = documents(DEPLOY / "compose.yaml")
    for name, service in compose["services"].items():
        if "build" not in service:
            continue
        build = service["build"]
        file = DEPLOY / build["context"] / build["dockerfile"]
        demand(file.exists(), f"{name}: there is no {file}")
        text = file.read_text()
        if "target" in build:
            stage = rf"(?mi)^FROM\b.*\bAS\s+{re.escape(build['target'])}\s*$"
            demand(re.search(stage, text), f"{name}: {file} has no stage `{build['target']}`")
        for arg in build["args"]:
            demand(re.search(rf"(?m)^ARG {arg}\b", text), f"{name}: {file} has no ARG {arg}")


def swarm():
    docker = need("docker", "Docker's command line")
    if not re.search(r"(?m)^ +config ", run(docker, "stack", "--help")):
        raise Skip("needs `docker stack config` (Docker 25 or later)")
    said = run(docker, "stack", "config", "-c", DEPLOY / "swarm.yaml")
    demand("Ignoring" not in said, said)


def drains_fit():
    """Nobody is killed while it drains: as the flags have it, 30 s and 10 s."""
    seconds = lambda text: int(str(text).removesuffix("s"))
    for file in ["compose.yaml", "swarm.yaml"]:
        (stack,) = documents(DEPLOY / file)
        for service, drain in [("ha", 30), ("webapp", 10)]:
            grace = stack["services"][service]["stop_grace_period"]
            demand(seconds(grace) > drain, f"{file}: {service} has {grace}")
    for unit, drain in [("tidings.service", 30), ("tidings-agent@.service", 10)]:
        stop = re.search(r"(?m)^TimeoutStopSec=(.*)$", (UNITS / unit).read_text())
        demand(stop and seconds(stop[1]) > drain, f"{unit}: TimeoutStopSec")
    for file, drain in [("ha.yaml", 5 + 30), ("webapp.yaml", 12)]:
        (pod,) = [d["spec"]["template"]["spec"] for d in documents(KUBERNETES / file) if d["kind"] == "Deployment"]
        grace = pod["terminationGracePeriodSeconds"]
        demand(grace > drain, f"{file}: terminationGracePeriodSeconds is {grace}")


# === Kubernetes ===


def manifests():
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    named = set(kustomization["resources"])
    there = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml"}
    demand(named == there, f"kustomization.yaml lists {sorted(named)}, there are {sorted(there)}")
    return [KUBERNETES / name for name in sorted(named)]


def kubernetes_schemas():
    validator = need_module("kubernetes_validate")
    for path in manifests():
        for document in documents(path):
            for version in KUBERNETES_VERSIONS:
                try:
                    validator.validate(document, version, strict=True)
                except validator.ValidationError as err:
                    kind, name = document["kind"], document["metadata"]["name"]
                    raise Failure(f"{path.name}: {kind} {name}, Kubernetes {version}: {err}") from None


def kubernetes_selectors():
    """Services, budgets and policies select what the Deployments make."""
    everything = [d for path in manifests() for d in documents(path)]
    pods = [d["spec"]["template"] for d in everything if d["kind"] == "Deployment"]
    for document in everything:
        kind, name, spec = document["kind"], document["metadata"]["name"], document.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if selector is None:
            continue
        labels = (selector.get("matchLabels", selector)).items()
        chosen = [pod for pod in pods if labels <= pod["metadata"]["labels"].items()]
        demand(chosen, f"{kind} {name} selects no Pod")
        if kind == "Service":
            ports = {p["name"] for pod in chosen for c in pod["spec"]["containers"] for p in c.get("ports", [])}
            for port in spec["ports"]:
                target = port.get("targetPort", port["name"])
                demand(target in ports, f"Service {name}: no container port {target}")


def kustomize():
    run(need("kubectl", "kubectl 1.22 or later"), "kustomize", KUBERNETES)


# === systemd ===


def with_units(check):
    """Units in a directory of their own, with the binary that is there, and an
    app to announce."""
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        for unit in UNITS.iterdir():
            text = unit.read_text().replace("/usr/local/bin/tidings", os.environ["TIDINGS"] or "/bin/true")
            (directory / unit.name).write_text(text)
        shutil.copy(directory / "tidings-agent@.service", directory / "tidings-agent@webapp.service")
        (directory / "webapp.service").write_text("[Service]\nExecStart=/bin/true\n")
        for unit in MOST_EXPOSURE:
            check(directory / unit)


def units():
    systemd = need("systemd-analyze", "Debian: systemd")

    def verify(unit):
        said = run(systemd, "verify", unit)
        demand(unit.name not in said, said)

    with_units(verify)


def exposure():
    systemd = need("systemd-analyze", "Debian: systemd")

    def measure(unit):
        said = run(systemd, "security", "--offline=true", "--no-pager", unit)
        level = re.search(r"exposure level for \S+: ([\d.]+)", said)
        demand(level, said)
        demand(float(level[1]) <= MOST_EXPOSURE[unit.name], f"{unit.name}: exposure {level[1]}")

    with_units(measure)


# === Prometheus and Grafana ===


def prometheus_config():
    run(need("promtool", "Debian: prometheus"), "check", "config", DEPLOY / "prometheus.yml")


def alerts():
    promtool = need("promtool", "Debian: prometheus")
    run(promtool, "test", "rules", DEPLOY / "alerts.test.yml")
    (rules,) = documents(DEPLOY / "alerts.yml")
    told = (DEPLOY / "alerts.test.yml").read_text()
    for group in rules["groups"]:
        for rule in group["rules"]:
            demand(rule["alert"] in told, f"{rule['alert']} fires in no test")


def dashboard_queries():
    """What the dashboard asks, with its variables filled in as Grafana does."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    queries += [a["expr"] for a in dashboard["annotations"]["list"]]
    return [q.replace("$__rate_interval", "20s").replace("$instance", ".*") for q in queries]


def dashboard():
    board = json.loads(DASHBOARD.read_text())
    demand(board["uid"] and board["title"] and board["schemaVersion"] >= 39, "uid, title or schemaVersion")
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    demand(len(ids) == len(set(ids)), "two panels have one id")
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        demand(at["x"] + at["w"] <= 24, f"{panel['title']} is too wide")
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                other = taken.setdefault((x, y), panel["title"])
                demand(other == panel["title"], f"{panel['title']} lies on {other}")
        refs = [target["refId"] for target in panel.get("targets", [])]
        demand(panel["type"] == "row" or refs, f"{panel['title']} asks nothing")
        demand(len(refs) == len(set(refs)), f"{panel['title']}: two queries of one refId")
    source = documents(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")[0]["datasources"][0]
    variable = board["templating"]["list"][0]
    demand(variable["current"]["value"] == source["uid"], "the data source's uid is another one")
    (compose,) = documents(DEPLOY / "compose.yaml")
    mounts = " ".join(compose["services"]["grafana"]["volumes"])
    provider = documents(DEPLOY / "grafana/provisioning/dashboards/tidings.yml")[0]["providers"][0]
    demand(provider["options"]["path"] in mounts, "the dashboards' path is mounted nowhere")
    promtool = need("promtool", "Debian: prometheus")
    rules = [{"record": f"query:{n}", "expr": q} for n, q in enumerate(dashboard_queries())]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        run(promtool, "check", "rules", file.name)


def prometheus_scrapes():
    """A real one, with the files as they are shipped but for the addresses."""
    import live

    promtool, prometheus = need("promtool", "Debian: prometheus"), need("prometheus", "Debian: prometheus")
    need_module("yaml")
    if not os.environ["TIDINGS"]:
        raise Skip("needs the binary (cargo build --release)")
    with live.Cluster(os.environ["TIDINGS"], prometheus, DEPLOY) as cluster:
        for url in cluster.metrics:
            with urllib.request.urlopen(url) as answer:
                said = run(promtool, "check", "metrics", input=answer.read().decode())
            demand(not said, f"{url}: {said}")
        cluster.everything_is_up()
        cluster.rules_are_healthy()
        known = cluster.metric_names()
        (rules,) = documents(DEPLOY / "alerts.yml")
        asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
        missing = set()
        for query in asked + dashboard_queries():
            cluster.ask(query)
            missing |= set(re.findall(r"\b(?:haproxy|tidings|process)_\w+", query)) - known
        demand(not missing, f"no such series: {', '.join(sorted(missing))}")
        cluster.says("tidings_members{job='tidings', state='alive'}", [3])
        cluster.says("haproxy_backend_active_servers", [2])
        cluster.says("tidings_agent_app_up", [1, 1])
        cluster.says("ALERTS{alertstate='firing'}", [])


CHECKS = [
    ("compose.yaml and swarm.yaml against the Compose specification", compose_spec),
    ("compose.yaml with docker-compose 1.29", compose_of_old),
    ("compose.yaml builds from what is there", compose_builds_from_what_is_there),
    ("swarm.yaml with docker stack config", swarm),
    ("grace periods are longer than drains", drains_fit),
    (f"kubernetes/ against the schemas of {' and '.join(KUBERNETES_VERSIONS)}", kubernetes_schemas),
    ("kubernetes/: selectors find Pods and ports", kubernetes_selectors),
    ("kubernetes/ with kubectl kustomize", kustomize),
    ("systemd/ with systemd-analyze verify", units),
    ("systemd/ with systemd-analyze security", exposure),
    ("prometheus.yml with promtool", prometheus_config),
    ("alerts.yml with promtool test rules", alerts),
    ("the dashboard's form and queries", dashboard),
    ("a real Prometheus scrapes, evaluates and answers", prometheus_scrapes),
]


def main():
    strict = "--strict" in sys.argv[1:]
    bad = 0
    for name, check in CHECKS:
        try:
            check()
            print(f"ok       {name}", flush=True)
        except Skip as why:
            bad += strict
            print(f"SKIPPED  {name}: {why}", flush=True)
        except (Failure, TimeoutError) as why:
            bad += 1
            print(f"FAILED   {name}: {why}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
