"""The work that the proxies are compared by, a row of the table each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    path: str = "/small"
    connections: int = 64
    servers: int = 2
    logs: bool = True
    post: int = 0
    cookies: bool = False
    reconnect: bool = False
    websocket: bool = False

    @property
    def load_flags(self):
        """What `load` must know of the work."""
        flags = ["--path", self.path, "--connections", str(self.connections)]
        if self.post:
            flags += ["--post", str(self.post)]
        if self.cookies:
            flags += ["--cookies", str(self.servers)]
        if self.reconnect:
            flags += ["--reconnect", "yes"]
        if self.websocket:
            flags += ["--websocket", "yes"]
        return flags

    @property
    def for_wrk(self):
        """Whether wrk can do it without a script, which would slow it."""
        return not (self.post or self.cookies or self.reconnect or self.websocket)


ROWS = [
    Row("small", "small, keep-alive, no access log", logs=False),
    Row("logs", "small, keep-alive, access log"),
    Row("64k", "64 KiB", path="/64k"),
    Row("1m", "1 MiB", path="/1m", connections=16),
    Row("connect", "a new connection each", reconnect=True),
    Row("one", "a request at a time", connections=1),
    Row("1000", "1,000 connections", connections=1000),
    Row("20-servers", "20 servers", servers=20),
    Row("1000-servers", "1,000 servers", servers=1000),
    Row("sticky", "sticky users, 20 servers", servers=20, cookies=True),
    Row("post-1k", "POST 1 KiB", post=1 << 10),
    Row("post-1m", "POST 1 MiB", post=1 << 20, connections=16),
    Row("websocket", "WebSocket, 64 bytes echoed", websocket=True),
]

# Measured by itself: connections that do nothing.
IDLE = "idle"
