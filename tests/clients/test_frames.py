"""What clients of higher level hide: settings, extended CONNECT, fields in pieces, expired deadlines."""

import json
from contextlib import closing

import pytest
from h2.settings import SettingCodes
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

from support import eventually, pattern
from support.frames import Frames

VERSION = ("sec-websocket-version", "13")


@pytest.fixture(params=["clear", "secure"])
def frames(request, proxy):
    with closing(Frames(proxy, request.param)) as frames:
        yield frames


class Socket:
    """A WebSocket inside a stream."""

    def __init__(self, stream):
        self._stream, self._socket = stream, Connection(ConnectionType.CLIENT)

    def send(self, event):
        self._stream.send(self._socket.send(event))

    def receive(self):
        """The next whole message, or the close."""
        pieces = []
        while True:
            for event in self._socket.events():
                if isinstance(event, CloseConnection):
                    return event
                assert isinstance(event, Message)
                pieces.append(event.data)
                if event.message_finished:
                    return type(pieces[0])().join(pieces)
            data = self._stream.read()
            assert data, "the stream has ended"
            self._socket.receive_data(data)


def test_the_settings_offer_extended_connect(frames):
    assert frames.settings()[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1


def dial(frames, path, *fields):
    frames.settings()
    return frames.open("CONNECT", path, VERSION, *fields, end=False, protocol="websocket")


def test_a_websocket_inside_a_stream_echoes(frames):
    stream = dial(frames, "/socket", ("sec-websocket-protocol", "game.v3, game.v2"))
    head = stream.head()
    assert head[":status"] == "200"
    assert head["sec-websocket-protocol"] == "game.v2"
    # These belong to the handshake of HTTP/1.1.
    assert not {"connection", "upgrade", "sec-websocket-accept"} & head.keys()
    socket = Socket(stream)
    socket.send(TextMessage("stake 5 €"))
    assert socket.receive() == "stake 5 €"
    # As large as the smallest window allows.
    socket.send(BytesMessage(pattern(16_000)))
    assert socket.receive() == pattern(16_000)


def test_a_websocket_inside_a_stream_ends_with_the_servers_code(frames):
    stream = dial(frames, "/socket")
    assert stream.head()[":status"] == "200"
    socket = Socket(stream)
    socket.send(TextMessage("close 4001 table is full"))
    closed = socket.receive()
    assert (closed.code, closed.reason) == (4001, "table is full")


def test_a_refused_websocket_inside_a_stream_is_the_servers_answer(frames):
    stream = dial(frames, "/socket/refused")
    assert stream.head()[":status"] == "403"
    assert stream.rest() == b"no players"


def test_websockets_and_requests_share_a_connection(frames):
    sockets = []
    for number in range(10):
        sockets.append(Socket(dial(frames, "/socket")))
        sockets[-1].send(TextMessage(f"player {number}"))
    answer = frames.open("GET", "/version")
    assert answer.head()[":status"] == "200"
    for number, socket in enumerate(sockets):
        assert socket.receive() == f"player {number}"


def test_a_cookie_in_pieces_is_one_cookie(towards_h1):
    with closing(Frames(towards_h1)) as frames:
        for number in range(20):
            pieces = [("cookie", "theme=dark"), ("cookie", f"uid=player-{number}")]
            whole = ("cookie", f"theme=dark; uid=player-{number}")
            torn = frames.open("GET", "/head", *pieces)
            fields = json.loads(torn.rest())
            assert [value for name, value in fields if name == "cookie"] == [whole[1]]
            told = frames.open("GET", "/version", whole).head()
            assert torn.head()["x-version"] == told["x-version"]


def test_the_host_of_a_request_is_its_authority(frames):
    fields = dict(json.loads(frames.open("GET", "/head").rest()))
    assert fields.get("host", fields.get(":authority")) == frames.authority


def test_the_origin_is_told_which_scheme_the_client_used(towards_h1):
    for listener, scheme in [("clear", "http"), ("secure", "https")]:
        with closing(Frames(towards_h1, listener)) as frames:
            fields = dict(json.loads(frames.open("GET", "/head").rest()))
        assert fields["x-forwarded-proto"] == scheme


def test_an_expired_deadline_is_answered_by_the_proxy(towards_h2, origins):
    """The origin never answers and knows nothing of gRPC."""
    for origin in origins.values():
        origin.left.clear()
    fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "300m")]
    with closing(Frames(towards_h2)) as frames:
        stream = frames.open("POST", "/hang", *fields, end=False)
        head = stream.head()
        assert stream.rest() == b""
        assert head[":status"] == "200"
        assert head["content-type"].startswith("application/grpc")
        assert {**head, **stream.trailers}["grpc-status"] == "4"
        # Which of them was asked is the split's affair.
        left = [origin.left for origin in origins.values()]
        eventually("the origin learns of it", lambda: any(event.is_set() for event in left))
