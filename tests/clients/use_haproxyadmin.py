"""Steers and reads the balancer through haproxyadmin (PyPI), which wants a
directory with unix sockets in it."""

import sys

from haproxyadmin import haproxy
from haproxyadmin.exceptions import CommandFailed

lb = haproxy.HAProxy(socket_dir=sys.argv[1])
assert [f.name for f in lb.frontends()] == ["localnodes"], lb.frontends()
assert [b.name for b in lb.backends()] == ["nodes"], lb.backends()
assert sorted(s.name for s in lb.servers()) == ["s1", "s2"]
assert int(lb.uptimesec) >= 0 and "d " in lb.uptime, lb.uptime
assert lb.metric("CumReq") >= 0 and lb.metric("CurrConns") >= 0
assert lb.nodename == "ha", lb.nodename
assert lb.releasedate, "a date"
assert int(lb.processids[0]) > 1

frontend = lb.frontend("localnodes")
assert frontend.status == "OPEN", frontend.status
assert frontend.metric("stot") >= 0
assert frontend.disable() and lb.frontend("localnodes").status == "STOP"
assert frontend.enable() and lb.frontend("localnodes").status == "OPEN"

backend = lb.backend("nodes")
assert backend.status == "UP" and backend.iid == 4
server = backend.server("s1")
assert server.status == "no check", server.status
assert server.sid == 1 and int(server.weight) == 1
assert server.address == "127.0.0.1" and int(server.port) == 1
for state, status in [
    ("drain", "DRAIN"),
    ("maint", "MAINT"),
    ("ready", "no check"),
    ("disable", "MAINT"),
    ("enable", "no check"),
]:
    assert server.setstate(state), state
    assert lb.server("s1", backend="nodes")[0].status == status, (state, server.status)
assert server.setweight(7) and int(server.weight) == 7
assert server.setweight("100%") and int(server.weight) == 1
assert server.shutdown()
server.address = "127.0.0.5"
assert server.address == "127.0.0.5"
try:
    backend.server("s1").setweight("x%")
    raise AssertionError("x% is no weight")
except CommandFailed:
    pass
assert lb.clearcounters() and lb.clearcounters(all=True)
assert lb.command("show cli level")[0][1] == ["admin"]
assert lb.errors()[0][1][0].startswith("Total events captured"), lb.errors()
print("ok")
