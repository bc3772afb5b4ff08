"""A client of HTTP/2 that shows frames, for what libraries of higher level hide: settings, extended
CONNECT (RFC 8441), fields as they are sent."""

import socket

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from . import PATIENCE


class Frames:
    """A connection by ALPN over TLS, or by prior knowledge in clear."""

    def __init__(self, proxy, listener="secure"):
        self.authority = proxy.secure if listener == "secure" else proxy.clear
        host, port = self.authority.split(":")
        self._scheme = "http"
        self._socket = socket.create_connection((host, int(port)), PATIENCE)
        if listener == "secure":
            self._scheme = "https"
            context = proxy.authority.context("h2", "http/1.1")
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost")
            assert self._socket.selected_alpn_protocol() == "h2"
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self._settled = False
        self._streams = {}
        self._flush()

    def close(self):
        self._socket.close()

    def settings(self):
        """The settings of the server, once they have arrived."""
        while not self._settled:
            self._read()
        return self.connection.remote_settings

    def open(self, method, path, *fields, end=True, protocol=None):
        """Begins a request, and returns its stream."""
        pseudo = [(":method", method), (":scheme", self._scheme), (":authority", self.authority),
                  (":path", path)]
        if protocol:
            pseudo.append((":protocol", protocol))
        number = self.connection.get_next_available_stream_id()
        self.connection.send_headers(number, [*pseudo, *fields], end_stream=end)
        self._streams[number] = Stream(self, number)
        self._flush()
        return self._streams[number]

    def _flush(self):
        self._socket.sendall(self.connection.data_to_send())

    def _read(self):
        data = self._socket.recv(65536)
        assert data, "the server has closed the connection"
        for event in self.connection.receive_data(data):
            self._settled |= isinstance(event, RemoteSettingsChanged)
            assert not isinstance(event, ConnectionTerminated), event
            if stream := self._streams.get(getattr(event, "stream_id", None)):
                stream.take(event)
        self._flush()


class Stream:
    def __init__(self, frames, number):
        self._frames, self._number = frames, number
        self._head = None
        self._body = bytearray()
        self.trailers = {}
        self.ended = False

    def head(self):
        while self._head is None:
            assert not self.ended
            self._frames._read()
        return self._head

    def read(self):
        """Bytes that have arrived, at least one unless the stream has ended."""
        while not self._body and not self.ended:
            self._frames._read()
        body, self._body = bytes(self._body), bytearray()
        return body

    def rest(self):
        body = b""
        while piece := self.read():
            body += piece
        return body

    def send(self, data, end=False):
        self._frames.connection.send_data(self._number, data, end_stream=end)
        self._frames._flush()

    def take(self, event):
        if isinstance(event, StreamReset):
            # An answer may be whole before the request is (RFC 9113 section 8.1).
            assert self.ended and event.error_code == ErrorCodes.NO_ERROR, event
        if isinstance(event, ResponseReceived):
            self._head = dict(event.headers)
        elif isinstance(event, DataReceived):
            self._body += event.data
            self._frames.connection.acknowledge_received_data(
                event.flow_controlled_length, event.stream_id
            )
        elif isinstance(event, TrailersReceived):
            self.trailers = dict(event.headers)
        elif isinstance(event, StreamEnded):
            self.ended = True
