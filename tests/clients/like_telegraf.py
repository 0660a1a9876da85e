"""Reads the statistics as Telegraf's haproxy input does, from the socket and
over HTTP: a header behind "# ", rows that are exactly as long, whole numbers
in every field but those of text, and tags from some of them."""

import csv
import socket
import sys
import urllib.request

TAGS = {"pxname": "proxy", "svname": "sv", "type": "type"}
TYPES = ["frontend", "backend", "server", "listener"]
TEXT = {
    "status", "check_status", "last_chk", "mode", "tracked", "agent_status",
    "last_agt", "addr", "cookie", "check_desc", "agent_desc", "algo", "proto",
}
SKIPPED = {"pid", "iid", "sid", "lastchg"}


def from_socket(path):
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.sendall(b"show stat\n")
    return client.makefile().read()


def gather(text):
    rows = csv.reader(text.splitlines())
    header = next(rows)
    assert header[0].startswith("# "), header[0]
    header[0] = header[0][2:]
    metrics = []
    for row in rows:
        if not row:
            continue
        assert len(row) == len(header), "number of columns does not match number of headers"
        fields, tags = {}, {}
        for name, value in zip(header, row):
            if value == "" or name == "-":
                continue
            if name == "type":
                tags[TAGS[name]] = TYPES[int(value)]
            elif name in TAGS:
                tags[TAGS[name]] = value
            elif name in TEXT:
                fields[name] = value
            else:
                number = int(value)
                if name not in SKIPPED:
                    fields[name] = number
        metrics.append((tags, fields))
    return metrics


for text in [
    from_socket(sys.argv[1]),
    urllib.request.urlopen(f"http://{sys.argv[2]}/haproxy?stats/;csv").read().decode(),
]:
    metrics = gather(text)
    by_name = {tags["sv"]: (tags, fields) for tags, fields in metrics}
    assert list(by_name) == ["FRONTEND", "s1", "s2", "BACKEND"], list(by_name)
    tags, fields = by_name["s2"]
    assert tags == {"proxy": "nodes", "sv": "s2", "type": "server"}, tags
    assert fields["weight"] == 10 and fields["status"] == "no check", fields
    assert by_name["FRONTEND"][1]["status"] == "OPEN"
print("ok")
