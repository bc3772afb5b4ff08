"""What tests share for a whole run: an authority, origins, and a proxy for each way towards them."""

import os
from contextlib import ExitStack, closing

import pytest

from support.authority import Authority
from support.calls import Calls
from support.origin import Origin
from support.tidegate import Tidegate


def pytest_runtest_logreport(report):
    """Says which test was skipped, and why, where somebody wants to know it at the end of a run."""
    path = os.environ.get("SKIPPED_TESTS")
    if path and report.skipped:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        with open(path, "a") as file:
            file.write(f"{report.nodeid}: {reason}\n")


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def start(tmp_path_factory, authority):
    """A proxy in front of versions, each by name with its fields; it lives as long as its block."""

    def start(service="", route="", top="", **versions):
        folder = tmp_path_factory.mktemp("tidegate")
        return closing(Tidegate(folder, authority, versions, service, route, top))

    return start


@pytest.fixture(scope="session")
def origins():
    """Two versions of a game API."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(Origin(name))) for name in ("v1", "v2")}


@pytest.fixture(scope="session")
def calls():
    """A server of gRPC."""
    with closing(Calls()) as calls:
        yield calls


@pytest.fixture(scope="session")
def towards_h1(origins, start):
    with start(**{name: {"endpoints": [o.address]} for name, o in origins.items()}) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def towards_h2(origins, start):
    versions = {
        name: {"endpoints": [origin.address], "protocol": "h2"} for name, origin in origins.items()
    }
    with start(**versions) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def towards_auto(authority, start):
    tls = {"ca": str(authority.certificate)}
    with closing(Origin("v1", authority)) as origin:
        version = {"endpoints": [origin.address], "protocol": "auto", "tls": tls}
        with start(v1=version) as proxy:
            yield proxy


@pytest.fixture(scope="session")
def towards_calls(calls, start):
    with start(v1={"endpoints": [calls.address], "protocol": "h2"}) as proxy:
        yield proxy


@pytest.fixture(params=["towards_h1", "towards_h2", "towards_auto"])
def proxy(request):
    """One test for each way towards the origins: HTTP/1.1, HTTP/2, and what TLS negotiates."""
    return request.getfixturevalue(request.param)
