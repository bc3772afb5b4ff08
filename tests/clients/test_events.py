"""Server-sent events: the origin sends the next one only after the client has reported the last, so one
that waits on the way ends the test."""

import uuid

import httpx
import pytest

from support import PATIENCE
from support.origin import EVENTS


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_events_arrive_one_by_one(proxy, scheme, http2):
    stream, seen = uuid.uuid4(), []
    context = proxy.authority.context()
    options = {"http1": not http2, "http2": http2, "verify": context, "timeout": PATIENCE}
    with httpx.Client(base_url=proxy.url("", scheme), **options) as client:
        with client.stream("GET", f"/events/{stream}") as events:
            assert events.headers["content-type"] == "text/event-stream"
            for line in events.iter_lines():
                if line.startswith("id: "):
                    seen.append(int(line.removeprefix("id: ")))
                    reported = client.post(f"/seen/{stream}", content=str(seen[-1]))
                    assert reported.status_code == 204
    assert seen == list(range(EVENTS))
