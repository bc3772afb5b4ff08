"""httpx over TLS: streams at once, and players that stay on their version whatever they speak."""

import asyncio

import httpx
import pytest

from support import PATIENCE


def client(proxy, http2):
    limits = httpx.Limits(max_connections=1)
    context = proxy.authority.context()
    return httpx.AsyncClient(
        http1=not http2, http2=http2, verify=context, limits=limits, timeout=PATIENCE,
        base_url=proxy.url(""),
    )


def test_a_hundred_requests_share_a_connection_and_none_gets_the_answer_of_another(proxy):
    async def ask():
        async with client(proxy, http2=True) as session:
            bodies = [f"player {number} ".encode() * 1000 for number in range(100)]
            answers = await asyncio.gather(*(session.post("/echo", content=b) for b in bodies))
            return bodies, answers

    bodies, answers = asyncio.run(ask())
    assert {answer.http_version for answer in answers} == {"HTTP/2"}
    assert [answer.content for answer in answers] == bodies


@pytest.mark.parametrize("fixture", ["towards_h1", "towards_h2"])
def test_a_player_is_on_one_version_whatever_is_spoken(request, fixture):
    proxy = request.getfixturevalue(fixture)
    players = [{"cookie": f"theme=dark; uid=player-{number}"} for number in range(40)]

    async def versions(http2):
        async with client(proxy, http2) as session:
            asked = [session.get("/version", headers=player) for player in players]
            return [answer.text for answer in await asyncio.gather(*asked)]

    first = asyncio.run(versions(http2=True))
    assert set(first) == {"v1", "v2"}
    assert first == asyncio.run(versions(http2=False))
    assert first == asyncio.run(versions(http2=True))
