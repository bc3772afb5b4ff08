"""A server of gRPC whose messages are plain bytes, so that no code has to be generated."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "tidegate.test.Calls"
# Bytes; above the largest message of the tests, whatever the library's default.
LARGEST = 16 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST),
    ("grpc.max_send_message_length", LARGEST),
    ("grpc.enable_http_proxy", 0),
]


def echo(message, context):
    context.set_trailing_metadata((("x-length", str(len(message))), ("x-raw-bin", b"\x00\xff")))
    return message


def join(messages, context):
    return b",".join(messages)


def count(message, context):
    for number in range(int(message)):
        yield b"%d" % number


def talk(messages, context):
    for message in messages:
        yield b"you said " + message


def refuse(message, context):
    context.send_initial_metadata((("x-table", "7"),))
    context.set_trailing_metadata((("x-limit", "500"), ("x-raw-bin", b"\x00\xff")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "stake above the limit: 500 €")


class Health:
    """A server that says of `game.Bets` alone whether it serves, by gRPC's health protocol."""

    SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"

    def __init__(self):
        self.status = self.SERVING
        check = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        self._server = grpc.server(ThreadPoolExecutor(4), options=OPTIONS)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("grpc.health.v1.Health", check)]
        )
        self.address = "127.0.0.1:%d" % self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self):
        self._server.stop(0).wait()

    def _check(self, message, context):
        if message != b"\x0a\x09game.Bets":
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self.status


class Calls:
    def __init__(self):
        self.hanging, self.cancelled = threading.Event(), threading.Event()
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(echo),
            "Join": grpc.stream_unary_rpc_method_handler(join),
            "Count": grpc.unary_stream_rpc_method_handler(count),
            "Talk": grpc.stream_stream_rpc_method_handler(talk),
            "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
            "Hang": grpc.unary_unary_rpc_method_handler(self._hang),
        }
        self._server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(SERVICE, handlers)]
        )
        self.address = "127.0.0.1:%d" % self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self):
        self._server.stop(0).wait()

    def _hang(self, message, context):
        """Answers once the call is over, so never."""
        over = threading.Event()
        assert context.add_callback(over.set)
        self.hanging.set()
        over.wait()
        self.cancelled.set()
        return b""
