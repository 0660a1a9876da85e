"""What clients do, all at once, to a balancer: each function is one of them,
and goes on until it is cancelled."""

import asyncio
import itertools
import random
from collections import Counter
from weakref import WeakSet

PATIENCE = 30
LARGE = 1 << 20
# How long after a kill a request may still fail that was inside the server,
# or that nobody knew to be lost: gossip's last word comes within that.
AFTERMATH = 10


class Failed(Exception):
    """A request that was not answered as it should have been."""


class Tally:
    """What became of requests. `killed` is when a server was killed last."""

    def __init__(self, clock):
        self.clock = clock
        self.good, self.excused, self.failed = Counter(), Counter(), Counter()
        self.killed = -AFTERMATH
        self.first_failures = []

    async def note(self, kind, request, excusable=False):
        """Waits for a request and counts it. What may be inside a server that
        is killed is `excusable`."""
        began = self.clock()
        try:
            async with asyncio.timeout(PATIENCE):
                await request
            self.good[kind] += 1
            return True
        except (OSError, EOFError, TimeoutError, Failed) as error:
            if excusable and self.killed > began - AFTERMATH:
                self.excused[kind] += 1
            else:
                self.failed[kind] += 1
                if len(self.first_failures) < 20:
                    self.first_failures.append(f"{began:.1f} s, {kind}: {type(error).__name__} {error}")
            return False


class Connection:
    """A client's connection."""

    opened = WeakSet()

    async def open(self, address):
        self.reader, self.writer = await asyncio.open_connection(*address)
        self.opened.add(self)
        return self

    def send(self, text, body=b""):
        self.writer.write(text.replace("\n", "\r\n").encode() + body)

    async def head(self):
        """A response's status and its fields."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {}
        for line in filter(None, lines[1:]):
            name, value = line.split(":", 1)
            fields[name.lower()] = value.strip()
        return int(lines[0].split(" ")[1]), fields

    async def answer(self, expected=200):
        status, fields = await self.head()
        length = int(fields.get("content-length", 0))
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                await self.reader.readexactly(size + 2)
            await self.reader.readuntil(b"\r\n")
        else:
            await self.reader.readexactly(length)
        if status != expected:
            raise Failed(f"{status} for {expected}")
        return fields

    def close(self):
        self.writer.close()

    def reset(self):
        self.writer.transport.abort()

    @classmethod
    def close_all(cls):
        """Those too whose tasks were cancelled."""
        for connection in cls.opened:
            connection.close()


def get(path="/", fields=""):
    return f"GET {path} HTTP/1.1\nhost: soak\n{fields}\n"


async def kept(address, tally):
    """Asks again and again on one connection, with the cookie it was given."""
    while True:
        connection, cookie = None, ""

        async def ask():
            nonlocal connection, cookie
            connection = connection or await Connection().open(address)
            connection.send(get(fields=cookie))
            fields = await connection.answer()
            if fields.get("set-cookie", "").startswith("SERVERID="):
                cookie = f"cookie: {fields['set-cookie'].split(';')[0]}\n"
            return fields

        for _ in range(random.randrange(50, 500)):
            await asyncio.sleep(random.uniform(0.02, 0.2))
            if not await tally.note("kept", ask()):
                break
        if connection:
            connection.close()


async def new(address, tally):
    """Asks once on each connection."""

    async def ask():
        connection = await Connection().open(address)
        try:
            connection.send(get(fields="connection: close\n"))
            await connection.answer()
        finally:
            connection.close()

    while True:
        await asyncio.sleep(random.uniform(0.02, 0.1))
        await tally.note("new", ask())


async def post(address, tally):
    """Sends bodies, small ones and large ones, in one piece and in chunks."""

    async def ask(size, chunked):
        connection = await Connection().open(address)
        try:
            framing = "transfer-encoding: chunked" if chunked else f"content-length: {size}"
            connection.send(f"POST /count HTTP/1.1\nhost: soak\n{framing}\n\n")
            for at in range(0, size, 16384):
                piece = bytes(min(16384, size - at))
                connection.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await connection.writer.drain()
            if chunked:
                connection.writer.write(b"0\r\n\r\n")
            await connection.answer()
        finally:
            connection.close()

    while True:
        await asyncio.sleep(random.uniform(0.1, 0.5))
        size = random.choice([10, 1024, 100_000, LARGE])
        await tally.note("post", ask(size, random.random() < 0.5), excusable=True)


async def large(address, tally):
    """Reads large bodies, at times slowly."""

    async def ask(slowly):
        connection = await Connection().open(address)
        try:
            connection.send(get(f"/bytes/{LARGE}", "connection: close\n"))
            status, _ = await connection.head()
            if status != 200:
                raise Failed(f"{status}")
            left = LARGE
            while left:
                piece = await connection.reader.read(65536)
                if not piece:
                    raise Failed("the body broke off")
                left -= len(piece)
                await asyncio.sleep(0.1 if slowly else 0)
        finally:
            connection.close()

    while True:
        await asyncio.sleep(random.uniform(0.2, 1))
        await tally.note("large", ask(random.random() < 0.3), excusable=True)


async def slow(address, tally):
    """Takes its time for a head."""

    async def ask():
        connection = await Connection().open(address)
        try:
            head = get(fields="connection: close\n").replace("\n", "\r\n").encode()
            for at in range(0, len(head), 4):
                connection.writer.write(head[at : at + 4])
                await asyncio.sleep(0.1)
            await connection.answer()
        finally:
            connection.close()

    while True:
        await tally.note("slow", ask())


async def never(address, tally):
    """Never ends its head, and is told so."""

    async def ask():
        connection = await Connection().open(address)
        try:
            connection.send("GET / HTTP/1.1\nhost: so")
            await connection.answer(408)
        finally:
            connection.close()

    while True:
        await tally.note("never", ask())


async def hang_up(address, tally):
    """Goes before the answer is there, or in the middle of a body."""

    async def ask():
        connection = await Connection().open(address)
        what = random.randrange(4)
        if what == 0:
            connection.send(get())
        elif what == 1:
            connection.send("POST /count HTTP/1.1\nhost: soak\ncontent-length: 100000\n\n", bytes(5000))
            await asyncio.sleep(random.uniform(0, 0.05))
        elif what == 2:
            connection.send(get(f"/bytes/{8 * LARGE}"))
            await connection.reader.read(1000)
        (connection.reset if random.random() < 0.5 else connection.close)()

    while True:
        await asyncio.sleep(random.uniform(0.02, 0.2))
        await tally.note("hang up", ask(), excusable=True)


async def soon(wanted, what):
    """Waits for it for a part of what a tunnel may take."""
    try:
        async with asyncio.timeout(10):
            return await wanted
    except TimeoutError:
        raise Failed(f"{what} did not come in 10 s") from None


async def tunnel(address, tally):
    """A WebSocket's worth of words to and fro, at the server that can: the
    cookie says which. It ends in one of the ways that tunnels end."""
    asks = "connection: upgrade\nupgrade: echo\ncookie: SERVERID=echo\n"

    async def talk():
        connection = await Connection().open(address)
        connection.send(get("/tunnel", asks))
        status, _ = await connection.head()
        if status != 101:
            raise Failed(f"{status} for 101")
        for n in range(random.randrange(1, 100)):
            connection.writer.write(b"%063d\n" % n)
            if await soon(connection.reader.readexactly(64), f"word {n}") != b"%063d\n" % n:
                raise Failed("other words than were said")
            await asyncio.sleep(random.uniform(0, 0.1))
        end = random.randrange(3)
        if end == 0:
            connection.writer.write_eof()
            if await soon(connection.reader.read(), "the other's end"):
                raise Failed("words that nobody said")
        (connection.reset if end == 1 else connection.close)()

    while True:
        await asyncio.sleep(random.uniform(0, 0.5))
        await tally.note("tunnel", talk())


async def serve_echo(reader, writer):
    """The server of tunnels."""
    try:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def view(stats, tally):
    """Looks at the page as it changes, and at events, for a while."""

    async def look():
        path = random.choice(["/;live", "/v1/events?follow"])
        connection = await Connection().open(stats)
        connection.send(get(path, "accept: text/event-stream\n"))
        status, _ = await connection.head()
        if status != 200:
            raise Failed(f"{status}")
        try:
            async with asyncio.timeout(random.uniform(1, 20)):
                while await connection.reader.read(65536):
                    pass
        except TimeoutError:
            pass
        connection.close()

    async def load(path):
        connection = await Connection().open(stats)
        connection.send(get(path, "connection: close\n"))
        await connection.answer()
        connection.close()

    for n in itertools.count():
        await tally.note("view", look())
        await tally.note("view", load(["/", "/;csv", "/;json", "/v1/servers", "/v1/members"][n % 5]))


async def http2(address, tally):
    """HTTP/2 by h2load, in short runs."""
    count = 100
    url = "http://{}:{}/".format(*address)
    while True:
        command = ("h2load", "-n", str(count), "-c", "2", "-m", "4", "--rps", "20", url)
        process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-3)
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        good = next((line for line in said.decode().splitlines() if line.startswith("status codes:")), "")
        good = int(good.split()[2]) if good else 0
        tally.good["http2"] += good
        if good < count:
            tally.failed["http2"] += count - good
            tally.first_failures.append(f"{tally.clock():.1f} s, http2: {count - good} of {count}")
        await asyncio.sleep(1)


# How many of each.
CROWD = [
    (kept, 24),
    (new, 4),
    (post, 6),
    (large, 3),
    (slow, 3),
    (never, 2),
    (hang_up, 4),
    (tunnel, 6),
]
