"""httpx sends a bet again and again until it has a response: each bet is placed once."""

import asyncio
import collections
import http.server
import threading
import time
import uuid
from contextlib import contextmanager

import httpx
import pytest

from support import PATIENCE

# Longer than a client of these tests waits.
SLOW = 0.4


class Bets(http.server.BaseHTTPRequestHandler):
    """Places bets; some take long, and of some the response is lost."""

    protocol_version = "HTTP/1.1"
    placed = collections.Counter()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["idempotency-key"].strip('"')
        self.placed[key] += 1
        if self.path == "/slow":
            time.sleep(SLOW)
        if self.path == "/lost":
            self.close_connection = True
            return
        body = f"bet {key} placed {self.placed[key]}".encode()
        self.send_response(201)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def bets():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bets) as server:
        server.daemon_threads = True
        Bets.placed.clear()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1:%d" % server.server_address[1]
        server.shutdown()


async def insist(session, path, key, timeout=PATIENCE):
    """As a careful client: the same request with the same key until there is a response."""
    headers = {"idempotency-key": f'"{key}"', "cookie": f"uid={key}"}
    for _ in range(50):
        try:
            return await session.post(path, content=b"{}", headers=headers, timeout=timeout)
        except httpx.TransportError:
            await asyncio.sleep(0.02)
    raise AssertionError("no response")


@pytest.mark.parametrize("http2", [False, True])
def test_a_client_that_gives_up_early_gets_the_first_response_in_the_end(start, http2):
    async def place(proxy):
        context = proxy.authority.context()
        async with httpx.AsyncClient(
            http1=not http2, http2=http2, verify=context, base_url=proxy.url("")
        ) as session:
            keys = [str(uuid.uuid4()) for _ in range(20)]
            answers = await asyncio.gather(
                *(insist(session, "/slow", key, timeout=0.1) for key in keys)
            )
            again = await asyncio.gather(*(insist(session, "/slow", key) for key in keys))
            return keys, answers, again

    with bets() as address, start(route="idempotency: {}", v1={"endpoints": [address]}) as proxy:
        keys, answers, again = asyncio.run(place(proxy))
        expected = [f"bet {key} placed 1" for key in keys]
        assert [answer.text for answer in answers] == expected
        assert [answer.text for answer in again] == expected
        assert {answer.headers["idempotent-replayed"] for answer in again} == {"true"}
        assert set(Bets.placed.values()) == {1}


def test_a_bet_whose_response_was_lost_is_not_placed_again(start):
    async def place(proxy):
        async with httpx.AsyncClient(base_url=proxy.url("", scheme="http")) as session:
            first = await insist(session, "/lost", "k")
            return first, await insist(session, "/lost", "k")

    with bets() as address, start(route="idempotency: {}", v1={"endpoints": [address]}) as proxy:
        first, second = asyncio.run(place(proxy))
        assert first.status_code == 502
        assert (second.status_code, second.json()["kind"]) == (409, "idempotency_unsure")
        assert Bets.placed["k"] == 1
