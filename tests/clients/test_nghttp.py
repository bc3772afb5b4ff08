"""nghttp and h2load: many streams of one connection, and windows that are small."""

import subprocess
from collections import Counter

import pytest

from support import PATIENCE, pattern

STREAMS = 20
LENGTH = 1 << 20


def run(*command):
    ended = subprocess.run(command, capture_output=True, timeout=PATIENCE + 5)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout


# Bits of the windows of streams and of the connection; the smallest is that of the protocol.
@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_streams_at_once_bring_every_byte(proxy, scheme, bits):
    windows = [f"--window-bits={bits}", f"--connection-window-bits={bits}"]
    url = proxy.url(f"/bytes/{LENGTH}", scheme)
    got = run("nghttp", f"--multiply={STREAMS}", f"--timeout={PATIENCE}", *windows, url)
    # The pieces of all streams are mixed, so they are counted.
    expected = Counter(pattern(LENGTH))
    assert Counter(got) == {byte: count * STREAMS for byte, count in expected.items()}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_two_thousand_requests_are_all_answered_well(proxy, scheme):
    told = run("h2load", "--requests=2000", "--clients=4", "--max-concurrent-streams=50",
               f"--connection-active-timeout={PATIENCE}", proxy.url("/version", scheme)).decode()
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told, told
    assert "status codes: 2000 2xx, 0 3xx, 0 4xx, 0 5xx" in told, told
    assert "Application protocol: h2" in told, told
