"""The proxies: where they are, and how each is told to do the same work.

Everyone keeps connections alive on both sides, balances by round robin, sets
a sticky cookie and honours it, says who asked (X-Forwarded-For, -Port,
-Proto), repeats what never reached a server, and writes an access log of the
same substance to its standard output, which is a pipe. README.md says where
they cannot be made equal.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Setup:
    """One start of a proxy."""

    port: int
    stats_port: int
    servers: list  # of "ADDRESS:PORT"
    logs: bool
    folder: Path

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


class HAProxy:
    key, title = "haproxy", "HAProxy"
    install = "apt-get install haproxy"
    balances = True

    def __init__(self):
        self.binary = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")

    def version(self):
        return re.search(r"version (\S+)", output(self.binary, "-v"))[1]

    def command(self, setup):
        logs = "log stdout format raw local0" if setup.logs else ""
        servers = "\n".join(
            f"    server s{n} {address} check cookie s{n}"
            for n, address in enumerate(setup.servers, 1)
        )
        config = f"""
global
    nbthread 1
    maxconn 9000
    {logs}
defaults
    mode http
    {"log global" if setup.logs else ""}
    {"option httplog" if setup.logs else ""}
    option forwardfor
    option redispatch
    retries 3
    http-reuse always
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout queue 5s
    timeout tunnel 1h
    default-server inter 2s
frontend localnodes
    bind 127.0.0.1:{setup.port}
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Proto http
    default_backend nodes
backend nodes
    balance roundrobin
    cookie SERVERID insert indirect nocache
{servers}
listen stats
    bind 127.0.0.1:{setup.stats_port}
    stats enable
    stats uri /
"""
        return [self.binary, "-db", "-f", setup.write("haproxy.cfg", config)]


class Nginx:
    key, title = "nginx", "nginx"
    install = "apt-get install nginx-light"
    balances = True

    def __init__(self):
        self.binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")

    def version(self):
        return re.search(r"nginx/(\S+)", output(self.binary, "-v"))[1]

    def command(self, setup):
        servers = list(enumerate(setup.servers, 1))
        idle = max(64, 4 * len(servers))
        groups = "\n".join(
            f"  upstream s{n} {{ server {address}; keepalive 64; "
            "keepalive_requests 1000000000; }"
            for n, address in servers
        )
        everyone = " ".join(f"server {address};" for _, address in servers)
        by_cookie = " ".join(f"s{n} s{n};" for n, _ in servers)
        by_address = " ".join(
            f'{address} "SERVERID=s{n}; Path=/";' for n, address in servers
        )
        log = "/dev/stdout like_httplog buffer=32k flush=1s" if setup.logs else "off"
        temporary = "\n".join(
            f"  {what}_temp_path {setup.folder}/{what};"
            for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = f"""
daemon off;
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1;
pid {setup.folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 19000; }}
http {{
{temporary}
  log_format like_httplog '$remote_addr:$remote_port [$time_local] localnodes '
    'nodes/$upstream_addr $request_time/$upstream_connect_time/'
    '$upstream_header_time/$upstream_response_time $status $bytes_sent '
    '$cookie_SERVERID $connection_requests "$request"';
  access_log {log};
  keepalive_timeout 60s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  map_hash_max_size 65536;
  map_hash_bucket_size 128;
  upstream nodes {{ {everyone} keepalive {idle}; keepalive_requests 1000000000; }}
{groups}
  map $cookie_SERVERID $route {{ default nodes; {by_cookie} }}
  map $upstream_addr $fresh {{ {by_address} }}
  map $route $set_cookie {{ nodes $fresh; }}
  map $route $cache {{ nodes private; }}
  map $http_upgrade $hop {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{setup.port};
    location / {{
      proxy_pass http://$route;
      proxy_http_version 1.1;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_set_header Host $http_host;
      proxy_set_header Connection $hop;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      add_header Set-Cookie $set_cookie;
      add_header Cache-Control $cache;
    }}
  }}
}}
"""
        return [self.binary, "-c", setup.write("nginx.conf", config)]


class Tidings:
    install = "cargo build --release"
    balances = True

    def __init__(self, binary, key="tidings", title="Tidings"):
        self.binary, self.key, self.title = str(binary), key, title

    def version(self):
        return output(self.binary, "--version").split()[-1]

    def command(self, setup):
        command = [
            *(self.binary, "serve", "--workers", "1", "--name", "compare"),
            *("--http", f"127.0.0.1:{setup.port}"),
            *("--stats", f"127.0.0.1:{setup.stats_port}"),
            *("--admin", f"unix:{setup.folder}/admin.sock"),
            *("--gossip", "127.0.0.1:0"),
            *("--access-log", "httplog" if setup.logs else "off"),
        ]
        for n, address in enumerate(setup.servers, 1):
            command += ["--server", f"s{n}={address}"]
        return command


class Floor:
    key, title = "floor", "floor"
    install = "cargo build"
    # A relay: it sets no cookie, adds no header, writes no log.
    balances = False

    def __init__(self, binary):
        self.binary = str(binary)

    def version(self):
        return "the relay in tools/src/bin/floor.rs"

    def command(self, setup):
        listen = f"127.0.0.1:{setup.port}"
        return [self.binary, "--listen", listen, "--", *setup.servers]
