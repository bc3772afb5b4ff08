"""Chromium: one page over HTTP/2 that fetches, posts, listens to events and talks over a WebSocket."""

from contextlib import closing

import pytest

from support import eventually
from support.browser import Browser
from support.origin import EVENTS


@pytest.fixture(scope="module")
def browser():
    with closing(Browser()) as browser:
        yield browser


def test_a_page_and_all_that_it_does(browser, proxy):
    browser.events.clear()
    url = proxy.url("/")
    browser.open(url)
    # The page before has the same names, and is there until this one is.
    runs = f"location.href == '{url}' && typeof results == 'object'"
    eventually("the page runs", lambda: browser.evaluate(runs))
    assert browser.evaluate("results") == {
        "protocol": "h2",
        "post": [200, True],
        "parallel": True,
        "events": [f"event {number}" for number in range(EVENTS)],
        "socket": ["game.v2", "stake 5 €", 100_000, 4001, "table is full"],
    }
    answers = [
        event["params"]["response"]["status"]
        for event in browser.events
        if event.get("method") == "Network.webSocketHandshakeResponseReceived"
    ]
    # 101 would be a connection of its own, 200 is a stream of the page's (RFC 8441).
    assert answers == [200]
