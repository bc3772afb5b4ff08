"""grpcio on both sides: the four kinds of calls, and how calls end."""

import queue
import socket
from contextlib import ExitStack, closing

import grpc
import pytest

from support import PATIENCE, eventually, happens, pattern
from support.calls import OPTIONS, SERVICE, Health

KINDS = {
    "Echo": "unary_unary",
    "Refuse": "unary_unary",
    "Hang": "unary_unary",
    "Join": "stream_unary",
    "Count": "unary_stream",
    "Talk": "stream_stream",
}


class Stub:
    """Methods of the service on a channel; messages are bytes."""

    def __init__(self, channel):
        for name, kind in KINDS.items():
            setattr(self, name.lower(), getattr(channel, kind)(f"/{SERVICE}/{name}"))


def channel(proxy, listener):
    if listener == "clear":
        return grpc.insecure_channel(proxy.clear, OPTIONS)
    roots = proxy.authority.certificate.read_bytes()
    return grpc.secure_channel(proxy.secure, grpc.ssl_channel_credentials(roots), OPTIONS)


@pytest.fixture(params=["clear", "secure"])
def stub(request, towards_calls):
    with channel(towards_calls, request.param) as opened:
        yield Stub(opened)


def fields(metadata):
    return {name: value for name, value in metadata}


def test_a_unary_call_is_answered(stub):
    answer, call = stub.echo.with_call(b"stake", timeout=PATIENCE)
    assert answer == b"stake"
    assert call.code() is grpc.StatusCode.OK
    trailing = fields(call.trailing_metadata())
    assert (trailing["x-length"], trailing["x-raw-bin"]) == ("5", b"\x00\xff")


def test_an_empty_message_is_a_message(stub):
    assert stub.echo(b"", timeout=PATIENCE) == b""


def test_a_clients_stream_arrives_in_order(stub):
    messages = [b"%d" % number for number in range(1000)]
    assert stub.join(iter(messages), timeout=PATIENCE) == b",".join(messages)


def test_a_servers_stream_arrives_in_order(stub):
    assert list(stub.count(b"1000", timeout=PATIENCE)) == [b"%d" % n for n in range(1000)]


def test_talk_goes_back_and_forth_message_by_message(stub):
    """The client says the next only after it heard the answer to the last: nothing waits on the way."""
    said = queue.SimpleQueue()
    heard = stub.talk(iter(said.get, None), timeout=PATIENCE)
    for number in range(50):
        said.put(b"%d" % number)
        assert next(heard) == b"you said %d" % number
    said.put(None)
    assert list(heard) == []
    assert heard.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("ahead", [1, 10_000])
def test_a_long_call_of_small_messages_is_no_flood(stub, ahead):
    """Ten thousand messages of 8 bytes each way, `ahead` of them before the first answer is read."""
    said = queue.SimpleQueue()
    heard = stub.talk(iter(said.get, None), timeout=10 * PATIENCE)
    messages = [b"%08d" % number for number in range(10_000)]
    for number in range(0, len(messages), ahead):
        for message in messages[number : number + ahead]:
            said.put(message)
        for message in messages[number : number + ahead]:
            assert next(heard) == b"you said " + message
    said.put(None)
    assert list(heard) == []
    assert heard.code() is grpc.StatusCode.OK


def test_calls_at_once_each_get_their_own_answer(stub):
    messages = [b"%d" % number * 100 for number in range(200)]
    pending = [stub.echo.future(message, timeout=PATIENCE) for message in messages]
    assert [answer.result() for answer in pending] == messages


def test_a_message_of_four_megabytes_arrives_unchanged_both_ways(stub):
    message = pattern(4 << 20)
    assert stub.echo(message, timeout=PATIENCE) == message


def test_status_message_and_metadata_of_a_refused_call_go_on(stub):
    with pytest.raises(grpc.RpcError) as refused:
        stub.refuse(b"", timeout=PATIENCE)
    call = refused.value
    assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert call.details() == "stake above the limit: 500 €"
    assert fields(call.initial_metadata())["x-table"] == "7"
    trailing = fields(call.trailing_metadata())
    assert (trailing["x-limit"], trailing["x-raw-bin"]) == ("500", b"\x00\xff")


def test_an_unknown_method_is_unimplemented_by_the_servers_word(towards_calls):
    with channel(towards_calls, "clear") as opened:
        with pytest.raises(grpc.RpcError) as refused:
            opened.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=PATIENCE)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_ends_a_call_here_and_there(stub, calls):
    calls.cancelled.clear()
    with pytest.raises(grpc.RpcError) as late:
        stub.hang(b"", timeout=0.5)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    happens("the server learns of it", calls.cancelled)


def test_a_cancelled_call_ends_at_the_server(stub, calls):
    calls.hanging.clear()
    calls.cancelled.clear()
    call = stub.hang.future(b"")
    happens("the call is at the server", calls.hanging)
    call.cancel()
    happens("the server learns of it", calls.cancelled)
    assert call.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("listener", ["clear", "secure"])
def test_a_server_that_is_down_is_unavailable(start, listener):
    # Bound and not listening: connections are refused, and nobody else can take the port.
    with socket.socket() as down:
        down.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % down.getsockname()[1]
        with start(v1={"endpoints": [address], "protocol": "h2"}) as proxy:
            with channel(proxy, listener) as opened, pytest.raises(grpc.RpcError) as refused:
                Stub(opened).echo(b"", timeout=PATIENCE)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_whoever_speaks_grpc_alone_is_checked_by_its_health_service(start, calls):
    """A check by GET is answered 415 by every server of gRPC, so all of them were down."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Health())) for _ in range(2))
        # The third has no such service.
        version = {"endpoints": [first.address, second.address, calls.address], "protocol": "h2"}
        check = "health: { grpc: { service: game.Bets }, interval: 20ms }"
        proxy = stack.enter_context(start(check, v1=version))
        eventually("checked", lambda: proxy.states() == ["serving", "serving", "down"])
        second.status = Health.NOT_SERVING
        eventually("one is down", lambda: proxy.states() == ["serving", "down", "down"])
        second.status = Health.SERVING
        eventually("back", lambda: proxy.states() == ["serving", "serving", "down"])
