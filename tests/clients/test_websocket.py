"""The package websockets: WebSocket through an upgrade of HTTP/1.1."""

import ssl
from contextlib import ExitStack

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from support import PATIENCE, pattern


@pytest.fixture(params=["ws", "wss"])
def scheme(request):
    return request.param


@pytest.fixture
def dial(proxy, scheme):
    context = proxy.authority.context() if scheme == "wss" else None
    if context:
        # This client reads in one thread while another sends the handshake. Where the session tickets of
        # TLS 1.3 come in between, its ssl module loses the request: 1 of 3,000, towards NGINX as well.
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    def dial(path="/socket", **options):
        return connect(proxy.url(path, scheme), ssl=context, max_size=None, open_timeout=PATIENCE,
                       close_timeout=PATIENCE, **options)

    return dial


def test_text_and_binary_come_back_as_they_were(dial):
    with dial() as socket:
        for message in ["stake 5 €", b"\x00\xff", "", b""]:
            socket.send(message)
            assert socket.recv(PATIENCE) == message


def test_talk_goes_back_and_forth_message_by_message(dial):
    with dial() as socket:
        for number in range(200):
            socket.send(f"{number}")
            assert socket.recv(PATIENCE) == f"{number}"


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_message_of_a_megabyte_comes_back_whole(dial, compression):
    message = pattern(1 << 20)
    with dial(compression=compression) as socket:
        socket.send(message)
        assert socket.recv(PATIENCE) == message


def test_a_ping_is_answered(dial):
    with dial() as socket:
        assert socket.ping(b"are you there").wait(PATIENCE)


def test_the_servers_close_code_and_reason_arrive(dial):
    with dial() as socket:
        socket.send("close 4001 table is full")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(PATIENCE)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "table is full")


def test_the_clients_close_code_arrives_and_comes_back(dial):
    with dial() as socket:
        socket.close(4002, "player left")
        assert socket.protocol.close_rcvd.code == 4002


def test_a_subprotocol_is_agreed_on_with_the_server(dial):
    with dial(subprotocols=["game.v3", "game.v2"]) as socket:
        assert socket.subprotocol == "game.v2"
    with dial(subprotocols=["game.v3"]) as socket:
        assert socket.subprotocol is None


def test_a_refused_upgrade_is_the_servers_answer(dial):
    with pytest.raises(InvalidStatus) as refused, dial("/socket/refused"):
        pass
    answer = refused.value.response
    assert (answer.status_code, answer.body) == (403, b"no players")


def test_sockets_at_once_keep_apart(dial):
    with ExitStack() as stack:
        sockets = [stack.enter_context(dial()) for _ in range(20)]
        for number, socket in enumerate(sockets):
            socket.send(f"player {number}")
        for number, socket in enumerate(sockets):
            assert socket.recv(PATIENCE) == f"player {number}"
