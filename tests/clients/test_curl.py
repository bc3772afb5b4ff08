"""curl: each HTTP that it speaks, towards each HTTP that origins speak."""

import subprocess

import pytest

from support import PATIENCE, pattern

# Arguments of curl, the scheme, and what curl says it has spoken.
DIALECTS = {
    "h1": (["--http1.1"], "http", "1.1"),
    "h1 over TLS": (["--http1.1"], "https", "1.1"),
    "h2 by ALPN": (["--http2"], "https", "2"),
    "h2 by prior knowledge": (["--http2-prior-knowledge"], "http", "2"),
}
LARGE = pattern(5_000_000)


@pytest.fixture(params=DIALECTS)
def dialect(request):
    return DIALECTS[request.param]


def run(proxy, path, dialect, *arguments, body=None):
    """What curl wrote to standard output, and to standard error."""
    options, scheme, _ = dialect
    command = ["curl", "--silent", "--show-error", "--fail", "--max-time", str(PATIENCE),
               "--cacert", proxy.authority.certificate, *options, *arguments, proxy.url(path, scheme)]
    ended = subprocess.run(command, input=body, capture_output=True, timeout=PATIENCE + 5)
    assert ended.returncode == 0, ended.stderr.decode(errors="replace")
    return ended.stdout, ended.stderr.decode(errors="replace")


def test_the_protocol_is_the_one_that_the_client_asked_for(proxy, dialect):
    told = run(proxy, "/nothing", dialect, "--write-out", "%{http_version} %{http_code}")[0]
    assert told.decode() == f"{dialect[2]} 204"


def test_a_get_has_its_whole_body(proxy, dialect):
    assert run(proxy, "/bytes/100000", dialect)[0] == pattern(100_000)


def test_a_head_has_a_length_and_no_body(proxy, dialect):
    told = run(proxy, "/bytes/1000", dialect, "--head")[0].decode().lower()
    assert "content-length: 1000\r\n" in told
    assert told.endswith("\r\n\r\n")


def test_large_bodies_arrive_unchanged_both_ways(proxy, dialect):
    sent = run(proxy, "/echo", dialect, "--data-binary", "@-", body=LARGE)[0]
    assert sent == LARGE


def test_a_body_without_a_length_arrives_unchanged(proxy, dialect):
    sent = run(proxy, "/echo", dialect, "--request", "POST", "--upload-file", "-", body=LARGE)[0]
    assert sent == LARGE


def test_many_requests_share_one_connection(proxy, dialect):
    options, scheme, _ = dialect
    if dialect is DIALECTS["h2 by prior knowledge"]:
        # curl 7.88 fails to use such a connection again, whoever is at its other end.
        pytest.skip("curl 7.88 opens a new connection")
    again = [proxy.url("/version", scheme)] * 9
    told = run(proxy, "/version", dialect, *again, "--write-out", "%{stderr}%{num_connects}\n")[1]
    assert told.split() == ["1"] + ["0"] * 9


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_client_that_waits_for_100_continue_gets_it(towards_h1, scheme):
    # curl would wait longer than it has time for the whole.
    arguments = ["--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "300",
                 "--data-binary", "@-"]
    body, told = run(towards_h1, "/echo", (["--http1.1"], scheme, "1.1"), *arguments, body=LARGE)
    assert "< HTTP/1.1 100" in told
    assert body == LARGE


def test_a_client_that_would_wait_for_100_continue_gets_its_answer(proxy, dialect):
    arguments = ["--header", "Expect: 100-continue", "--data-binary", "@-"]
    assert run(proxy, "/echo", dialect, *arguments, body=LARGE)[0] == LARGE


@pytest.mark.parametrize("name", ["h2 by ALPN", "h2 by prior knowledge"])
def test_trailers_go_on(towards_h2, name):
    arguments = ["--header", "TE: trailers", "--dump-header", "/dev/stderr"]
    body, told = run(towards_h2, "/trailers", DIALECTS[name], *arguments)
    assert body == b"body"
    assert "x-checksum: 2a" in told.split("\r\n\r\n", 1)[1]
