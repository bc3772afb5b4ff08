"""Which HTTP an origin is asked in."""

from contextlib import closing

import httpx
import pytest

from support import PATIENCE
from support.origin import Origin


def protocol(proxy):
    answer = httpx.get(proxy.url("/version", "http"), timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-protocol"]


@pytest.mark.parametrize(
    ("fixture", "expected"), [("towards_h1", "1.1"), ("towards_h2", "2"), ("towards_auto", "2")]
)
def test_an_origin_is_asked_in_the_protocol_of_its_version(request, fixture, expected):
    assert protocol(request.getfixturevalue(fixture)) == expected


def test_auto_takes_http_1_from_an_origin_that_offers_nothing_else(authority, start):
    with closing(Origin("v1", authority, alpn=["http/1.1"])) as origin:
        tls = {"ca": str(authority.certificate)}
        with start(v1={"endpoints": [origin.address], "protocol": "auto", "tls": tls}) as proxy:
            assert protocol(proxy) == "1.1"
