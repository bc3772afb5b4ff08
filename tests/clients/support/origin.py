"""An origin: an ASGI application behind Hypercorn, which speaks HTTP/1.1 and HTTP/2 on one port, and
WebSocket over both. It lives in a thread of its own, on a socket that was bound before.

Every answer tells in `x-version` who gave it, and in `x-protocol` which HTTP the origin was asked in."""

import asyncio
import json
import socket
import threading
from pathlib import Path

from hypercorn.asyncio import serve
from hypercorn.config import Config
from h2.events import DataReceived
from hypercorn.protocol import h2
from hypercorn.protocol.events import EndData
from hypercorn.protocol.ws_stream import WSStream
from wsproto.connection import ConnectionState

from . import PATIENCE, happens, pattern

EVENTS = 5
PAGE = Path(__file__).with_name("page.html").read_bytes()


class Socket(WSStream):
    """Ends its stream after the closing handshake; Hypercorn leaves it open if the client closed first."""

    async def _handle_events(self):
        await super()._handle_events()
        if self.connection.state is ConnectionState.CLOSED:
            await self.send(EndData(stream_id=self.stream_id))


h2.WSStream = Socket
handle_events = h2.H2Protocol._handle_events


async def handle_each(self, events):
    """Drops what arrives on a stream that has ended, such as the end of a WebSocket's stream after its last
    frame. Hypercorn raises an error in the task that reads the connection, and then neither reads nor closes
    it."""
    for event in events:
        if isinstance(event, DataReceived) and event.stream_id not in self.streams:
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        else:
            await handle_events(self, [event])


h2.H2Protocol._handle_events = handle_each


class Origin:
    def __init__(self, name, authority=None, alpn=("h2", "http/1.1")):
        self.name = name
        self.left = threading.Event()
        self._streams = {}
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]
        self._config = Config()
        self._config.bind = [f"fd://{self._socket.fileno()}"]
        self._config.loglevel = "WARNING"
        # By default an origin sends clients away after a thousand requests.
        self._config.keep_alive_max_requests = 10**9
        # Two hundred requests at once are as many connections in HTTP/1.1.
        self._config.backlog = 1024
        self._config.graceful_timeout = 1
        self._config.alpn_protocols = list(alpn)
        if authority:
            self._config.certfile = str(authority.folder / "edge.pem")
            self._config.keyfile = str(authority.folder / "edge.key")
        self._started = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=[self._serve()], daemon=True)
        self._thread.start()
        happens("the origin starts", self._started)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._socket.detach()

    async def _serve(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await serve(self._app, self._config, shutdown_trigger=self._wait)

    async def _wait(self):
        await self._stop.wait()

    async def _app(self, scope, receive, send):
        if scope["type"] == "lifespan":
            return await self._live(receive, send)
        root = scope["path"].split("/")[1]
        if scope["type"] == "websocket":
            return await socket_of(scope, receive, send)
        call = Call(self.name, scope, receive, send)
        await {
            "": call.page,
            "version": call.version,
            "head": call.head,
            "echo": call.echo,
            "bytes": call.bytes,
            "nothing": call.nothing,
            "trailers": call.trailers,
            "hang": lambda: self._hang(call),
            "events": lambda: self._events(call),
            "seen": lambda: self._seen(call),
        }[root]()

    async def _live(self, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        self._started.set()
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _hang(self, call):
        """Never answers, and notes when the client has left."""
        while (await call.receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    async def _events(self, call):
        """Sends each event after the one before was reported as seen."""
        seen = self._streams.setdefault(call.argument, asyncio.Queue())
        await call.start(200, ("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        for number in range(EVENTS):
            await call.piece(f"id: {number}\ndata: event {number}\n\n".encode())
            assert await asyncio.wait_for(seen.get(), PATIENCE) == number
        await call.piece(b"event: end\ndata: end\n\n")
        await call.end()

    async def _seen(self, call):
        await self._streams[call.argument].put(int(await call.body()))
        await call.nothing()


class Call:
    def __init__(self, name, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        self.argument = scope["path"].split("/")[-1]
        self.told = [("x-version", name), ("x-protocol", scope["http_version"])]

    async def body(self):
        pieces, more = [], True
        while more:
            message = await self.receive()
            assert message["type"] == "http.request", message
            pieces.append(message["body"])
            more = message["more_body"]
        return b"".join(pieces)

    async def start(self, status, *headers, trailers=False):
        headers = [(n.encode(), v.encode()) for n, v in (*self.told, *headers)]
        await self.send({"type": "http.response.start", "status": status, "headers": headers,
                         "trailers": trailers})

    async def piece(self, body):
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body=b""):
        await self.send({"type": "http.response.body", "body": body})

    async def answer(self, body, kind="text/plain"):
        await self.start(200, ("content-type", kind), ("content-length", str(len(body))))
        await self.end(body)

    async def page(self):
        await self.answer(PAGE, "text/html; charset=utf-8")

    async def version(self):
        await self.answer(self.told[0][1].encode())

    async def head(self):
        """The fields of the request as the origin got them."""
        fields = [(n.decode(), v.decode()) for n, v in self.scope["headers"]]
        await self.answer(json.dumps(fields).encode(), "application/json")

    async def echo(self):
        await self.answer(await self.body(), "application/octet-stream")

    async def bytes(self):
        await self.answer(pattern(int(self.argument)), "application/octet-stream")

    async def nothing(self):
        await self.start(204)
        await self.end()

    async def trailers(self):
        await self.start(200, ("trailer", "x-checksum"), trailers=True)
        await self.end(b"body")
        headers = [(b"x-checksum", b"2a")]
        await self.send({"type": "http.response.trailers", "headers": headers})


async def socket_of(scope, receive, send):
    """Echoes messages; `close CODE REASON` closes."""
    await receive()
    if scope["path"] == "/socket/refused":
        fields = [(b"content-type", b"text/plain"), (b"content-length", b"10")]
        await send({"type": "websocket.http.response.start", "status": 403, "headers": fields})
        await send({"type": "websocket.http.response.body", "body": b"no players"})
        return
    known = [name for name in scope["subprotocols"] if name == "game.v2"]
    await send({"type": "websocket.accept", "subprotocol": known[0] if known else None})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text and text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            await send({"type": "websocket.close", "code": int(code), "reason": reason})
        else:
            answer = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
            await send({"type": "websocket.send", **answer})
