"""What no client library lets one do: a raw socket, with pika's codec to write and read the frames."""

import contextlib
import re
import socket
import struct
import time

import pika
from pika import frame, spec

import harness
from harness import WAIT_SECONDS, case, check, equal, text_is, unique

START_HEADER = b"AMQP\x00\x00\x09\x01"


class Peer:
    """A socket that speaks frames, and nothing by itself: no heartbeats, no answers."""

    def __init__(self, broker):
        self.socket = socket.create_connection((broker.host, broker.port), timeout=WAIT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.server_properties = {}
        self.tune = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def method(self, channel, method):
        self.send(frame.Method(channel, method).marshal())

    def content(self, channel, publish, body, properties=None, size=None):
        """A publish with its header and body; `size` is what the header declares."""
        self.method(channel, publish)
        self.send(frame.Header(channel, len(body) if size is None else size, properties or pika.BasicProperties()).marshal())
        if body:
            self.send(frame.Body(channel, body).marshal())

    def read_frame(self, seconds=WAIT_SECONDS):
        """The next frame; None where the broker closed the connection."""
        end = time.monotonic() + seconds
        while True:
            used, got = frame.decode_frame(self.buffer)
            if got is not None:
                self.buffer = self.buffer[used:]
                return got
            left = end - time.monotonic()
            check(left > 0, f"no frame within {seconds} s")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except (ConnectionResetError, BrokenPipeError):
                return None
            except TimeoutError:
                continue
            if not data:
                return None
            self.buffer += data

    def expect(self, kind, channel=None):
        """The next method frame, which must be of the kind; heartbeats are passed over."""
        got = self.read_frame()
        while isinstance(got, frame.Heartbeat):
            got = self.read_frame()
        check(got is not None, f"the connection was closed where {kind.__name__} is due")
        check(isinstance(got, frame.Method), f"{got!r} where {kind.__name__} is due")
        check(isinstance(got.method, kind), f"{got.method!r} where {kind.NAME} is due")
        if channel is not None:
            equal(got.channel_number, channel, "channel")
        return got.method

    def expect_closed(self, seconds=WAIT_SECONDS):
        """The broker closes the socket; what it says before is passed over."""
        while self.read_frame(seconds) is not None:
            pass

    def expect_connection_error(self, code, text):
        close = self.expect(spec.Connection.Close, 0)
        equal(close.reply_code, code, f"reply code (text: {close.reply_text!r})")
        text_is(close.reply_text, text)
        self.method(0, spec.Connection.CloseOk())
        self.expect_closed()
        return close

    def expect_channel_error(self, channel, code, text):
        close = self.expect(spec.Channel.Close, channel)
        equal(close.reply_code, code, f"reply code (text: {close.reply_text!r})")
        text_is(close.reply_text, text)
        self.method(channel, spec.Channel.CloseOk())
        return close

    def start(self, user="guest", password="guest", mechanism="PLAIN", capabilities=True):
        self.send(START_HEADER)
        start = self.expect(spec.Connection.Start)
        self.server_properties = start.server_properties
        self.mechanisms = start.mechanisms
        response = f"\x00{user}\x00{password}"
        properties = {"capabilities": {"authentication_failure_close": True, "consumer_cancel_notify": True}}
        self.method(0, spec.Connection.StartOk(
            client_properties=properties if capabilities else {}, mechanism=mechanism, response=response))
        return start

    def tune_ok(self, channel_max=None, frame_max=None, heartbeat=0):
        self.tune = self.expect(spec.Connection.Tune)
        self.method(0, spec.Connection.TuneOk(
            self.tune.channel_max if channel_max is None else channel_max,
            self.tune.frame_max if frame_max is None else frame_max,
            heartbeat))

    def open(self, vhost="/", channels=(1,), **tuning):
        self.start()
        self.tune_ok(**tuning)
        self.method(0, spec.Connection.Open(virtual_host=vhost))
        self.expect(spec.Connection.OpenOk)
        for channel in channels:
            self.open_channel(channel)
        return self

    def open_channel(self, channel):
        self.method(channel, spec.Channel.Open())
        self.expect(spec.Channel.OpenOk, channel)

    def queue(self, channel=1, name=None, **more):
        self.method(channel, spec.Queue.Declare(queue=name or unique(), exclusive=True, **more))
        return self.expect(spec.Queue.DeclareOk, channel).queue

    def is_alive(self, channel=1):
        self.method(channel, spec.Basic.Qos())
        self.expect(spec.Basic.QosOk, channel)


def opened(broker, **more):
    return Peer(broker).open(**more)


# Handshake.


@case
def other_protocol_headers_are_answered_with_the_right_one(broker):
    for header in (b"AMQP\x00\x00\x09\x02", b"AMQP\x00\x00\x0a\x00", b"AMQP\x02\x01\x00\x00", b"HTTP/1.1",
                   b"GET / HTTP/1.1\r\n\r\n"):
        with Peer(broker) as peer:
            peer.send(header)
            got = b""
            with contextlib.suppress(ConnectionResetError):
                while len(got) < 64:
                    data = peer.socket.recv(64)
                    if not data:
                        break
                    got += data
            # RabbitMQ 4 may answer with AMQP 1.0's header, which it speaks too.
            check(got in (START_HEADER, b"AMQP\x03\x01\x00\x00"), f"{header!r} answered {got!r}")


@case
def the_old_header_of_0_9_1_is_taken(broker):
    with Peer(broker) as peer:
        peer.send(b"AMQP\x01\x01\x00\x09")
        peer.expect(spec.Connection.Start)


@case
def a_header_octet_by_octet(broker):
    with Peer(broker) as peer:
        for octet in START_HEADER:
            peer.send(bytes([octet]))
            time.sleep(0.002)
        start = peer.expect(spec.Connection.Start)
        equal((start.version_major, start.version_minor), (0, 9))
        mechanisms = start.mechanisms if isinstance(start.mechanisms, str) else start.mechanisms.decode()
        check({"PLAIN", "AMQPLAIN"} <= set(mechanisms.split()), mechanisms)


@case
def a_whole_session_octet_by_octet(broker):
    with opened(broker) as peer:
        name = unique()
        data = frame.Method(1, spec.Queue.Declare(queue=name, exclusive=True)).marshal()
        data += frame.Method(1, spec.Basic.Publish(routing_key=name)).marshal()
        data += frame.Header(1, 5, pika.BasicProperties(message_id="m")).marshal()
        data += frame.Body(1, b"he").marshal() + frame.Body(1, b"").marshal() + frame.Body(1, b"llo").marshal()
        data += frame.Method(1, spec.Basic.Get(queue=name, no_ack=True)).marshal()
        for octet in data:
            peer.send(bytes([octet]))
        equal(peer.expect(spec.Queue.DeclareOk).queue, name)
        peer.expect(spec.Basic.GetOk)
        equal(peer.read_frame().body_size, 5)
        equal(peer.read_frame().fragment, b"hello")


@case
def everything_in_one_write(broker):
    with opened(broker) as peer:
        name = unique()
        data = frame.Method(1, spec.Queue.Declare(queue=name, exclusive=True)).marshal()
        publish = frame.Method(1, spec.Basic.Publish(routing_key=name)).marshal()
        publish += frame.Header(1, 1, pika.BasicProperties()).marshal() + frame.Body(1, b"x").marshal()
        data += publish * 1000 + frame.Method(1, spec.Queue.Purge(queue=name)).marshal()
        peer.send(data)
        peer.expect(spec.Queue.DeclareOk)
        equal(peer.expect(spec.Queue.PurgeOk).message_count, 1000)


@case
def amqplain_login(broker):
    with Peer(broker) as peer:
        peer.send(START_HEADER)
        peer.expect(spec.Connection.Start)
        table = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x05guest"
        peer.method(0, spec.Connection.StartOk(client_properties={}, mechanism="AMQPLAIN", response=table))
        peer.tune_ok()
        peer.method(0, spec.Connection.Open(virtual_host="/"))
        peer.expect(spec.Connection.OpenOk)


@case
def a_refused_login_is_403_where_the_client_can_hear_it(broker):
    for mechanism in ("PLAIN", "AMQPLAIN"):
        with Peer(broker) as peer:
            peer.send(START_HEADER)
            peer.expect(spec.Connection.Start)
            response = "\x00guest\x00no"
            if mechanism == "AMQPLAIN":
                response = b"\x05LOGINS\x00\x00\x00\x05guest\x08PASSWORDS\x00\x00\x00\x02no"
            properties = {"capabilities": {"authentication_failure_close": True}}
            peer.method(0, spec.Connection.StartOk(client_properties=properties, mechanism=mechanism, response=response))
            peer.expect_connection_error(
                403,
                f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
                "For details see the broker logfile.")


@case
def a_refused_login_drops_the_socket_where_the_client_cannot(broker):
    with Peer(broker) as peer:
        peer.start(password="no", capabilities=False)
        check(peer.read_frame() is None, "something was said")


@case
def an_unknown_mechanism_ends_the_connection(broker):
    with Peer(broker) as peer:
        peer.start(mechanism="GUESS")
        peer.expect_closed()


@case
def limits_below_the_specifications_are_530(broker):
    for tuning, text in (
        ({"frame_max": 2048}, re.compile(r"NOT_ALLOWED - negotiated frame_max = 2048 is lower than the minimum allowed value \(\d+\)")),
        ({"frame_max": 200_000}, re.compile(r"NOT_ALLOWED - negotiated frame_max = 200000 is higher than the maximum allowed value \(131072\)")),
        ({"channel_max": 4000}, re.compile(r"NOT_ALLOWED - negotiated channel_max = 4000 is higher than the maximum allowed value \(2047\)")),
        ({"frame_max": 0}, re.compile(r"NOT_ALLOWED - negotiated frame_max = 0 .*")),
        ({"channel_max": 0}, re.compile(r"NOT_ALLOWED - negotiated channel_max = 0 .*")),
    ):
        with Peer(broker) as peer:
            peer.start()
            peer.tune_ok(**tuning)
            if broker.is_rabbitmq_3:
                peer.expect_closed()  # without a word
            else:
                peer.expect_connection_error(530, text)


@case
def an_unknown_vhost_is_530(broker):
    with Peer(broker) as peer:
        peer.start()
        peer.tune_ok()
        peer.method(0, spec.Connection.Open(virtual_host="nowhere"))
        close = peer.expect_connection_error(530, "NOT_ALLOWED - vhost nowhere not found")
        equal((close.class_id, close.method_id), (10, 40))


@case
def a_silent_handshake_is_given_up(broker):
    with Peer(broker) as mute, Peer(broker) as half:
        half.send(START_HEADER)
        half.expect(spec.Connection.Start)
        begun = time.monotonic()
        mute.expect_closed(seconds=14)
        half.expect_closed(seconds=14)
        seconds = time.monotonic() - begun
        check(8 < seconds < 13, f"given up after {seconds:.1f} s")


@case
def close_is_answered_and_the_socket_closed(broker):
    with opened(broker) as peer:
        peer.method(0, spec.Connection.Close(200, "bye", 0, 0))
        peer.expect(spec.Connection.CloseOk, 0)
        peer.socket.shutdown(socket.SHUT_WR)
        check(peer.read_frame() is None)


# Heartbeats.


@case
def a_silent_peer_is_dropped_after_two_intervals(broker):
    with opened(broker, heartbeat=1) as peer:
        begun = time.monotonic()
        beats = 0
        got = peer.read_frame(seconds=8)
        while isinstance(got, frame.Heartbeat):
            beats += 1
            got = peer.read_frame(seconds=8)
        seconds = time.monotonic() - begun
        check(got is None, f"{got!r} where the socket should close")
        check(1.5 < seconds < 6, f"dropped after {seconds:.1f} s")
        check(beats >= 1, "the broker sent no heartbeat")


@case
def the_broker_sends_heartbeats_at_half_the_interval(broker):
    with opened(broker, heartbeat=2) as peer:
        begun = time.monotonic()
        for _ in range(4):
            peer.send(frame.Heartbeat().marshal())
            check(isinstance(peer.read_frame(seconds=3), frame.Heartbeat), "something else came")
        check(time.monotonic() - begun < 8.5, "too few heartbeats")
        peer.is_alive()


@case
def any_traffic_counts_as_a_sign_of_life(broker):
    with opened(broker, heartbeat=1) as peer:
        begun = time.monotonic()
        while time.monotonic() - begun < 3.2:
            peer.method(1, spec.Basic.Qos())
            peer.expect(spec.Basic.QosOk)
            time.sleep(0.2)


@case
def no_heartbeats_where_none_were_agreed(broker):
    with opened(broker, heartbeat=0) as peer:
        peer.socket.settimeout(2.5)
        try:
            got = peer.socket.recv(1)
        except TimeoutError:
            got = None
        check(got is None, f"{got!r} came")
        peer.is_alive()


@case
def heartbeats_on_a_channel_or_with_a_payload(broker):
    with opened(broker) as peer:
        peer.send(b"\x08\x00\x00\x00\x00\x00\x00\xce" * 3)
        peer.is_alive()


# Broken frames.


@case
def a_wrong_frame_end_is_501(broker):
    with opened(broker) as peer:
        good = frame.Method(1, spec.Basic.Qos()).marshal()
        peer.send(good[:-1] + b"\x00")
        peer.expect_connection_error(501, re.compile("FRAME_ERROR - .*"))


@case
def a_frame_above_the_limit_is_501(broker):
    with opened(broker, frame_max=4096) as peer:
        name = peer.queue()
        peer.content(1, spec.Basic.Publish(routing_key=name), b"x" * (4096 - 8))
        peer.is_alive()
        peer.method(1, spec.Basic.Publish(routing_key=name))
        peer.send(frame.Header(1, 5000, pika.BasicProperties()).marshal())
        peer.send(struct.pack(">BHL", 3, 1, 4096 + 1) + b"x" * (4096 + 1) + b"\xce")  # RabbitMQ forgives eight octets
        peer.expect_connection_error(501, re.compile("FRAME_ERROR - .*"))


@case
def an_unknown_frame_kind_ends_the_connection(broker):
    with opened(broker) as peer:
        peer.send(struct.pack(">BHL", 7, 1, 0) + b"\xce")
        close = peer.expect(spec.Connection.Close)
        check(close.reply_code in (501, 505, 503), repr(close))


@case
def an_unknown_method_is_540(broker):
    for class_id, method_id in ((60, 199), (99, 10)):
        with opened(broker) as peer:
            payload = struct.pack(">HH", class_id, method_id)
            peer.send(struct.pack(">BHL", 1, 1, len(payload)) + payload + b"\xce")
            if broker.is_rabbitmq_3:
                peer.expect_closed()  # it fails inside
            else:
                close = peer.expect(spec.Connection.Close)
                equal((close.reply_code, close.class_id, close.method_id), (540, class_id, method_id))


@case
def truncated_arguments_are_502(broker):
    with opened(broker) as peer:
        payload = struct.pack(">HH", 50, 10) + b"\x00\x00\xffshort"
        peer.send(struct.pack(">BHL", 1, 1, len(payload)) + payload + b"\xce")
        close = peer.expect(spec.Connection.Close)
        check(close.reply_code in (501, 502, 541), repr(close))


@case
def ten_thousand_nested_tables_do_no_harm(broker):
    table = b""
    for _ in range(10_000):
        table = b"\x01kF" + struct.pack(">I", len(table)) + table
    arguments = struct.pack(">HH", 50, 10) + b"\x00\x00\x01q\x00" + struct.pack(">I", len(table)) + table
    with opened(broker) as peer, opened(broker) as other:
        peer.send(struct.pack(">BHL", 1, 1, len(arguments)) + arguments + b"\xce")
        got = peer.read_frame()
        check(got is None or got.method.NAME in ("Connection.Close", "Queue.DeclareOk"), repr(got))
        if got is not None and got.method.NAME == "Queue.DeclareOk":
            peer.method(1, spec.Queue.Delete(queue="q"))
            peer.expect(spec.Queue.DeleteOk)
        other.is_alive()


# Frames in the wrong order or on the wrong channel.


@case
def a_body_where_a_method_is_due_is_505(broker):
    with opened(broker) as peer:
        peer.send(frame.Body(1, b"x").marshal())
        peer.expect_connection_error(505, re.compile("UNEXPECTED_FRAME - .*"))


@case
def a_method_where_a_header_is_due_is_505(broker):
    with opened(broker) as peer:
        peer.method(1, spec.Basic.Publish(routing_key="x"))
        peer.method(1, spec.Basic.Qos())
        peer.expect_connection_error(
            505, re.compile("UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"))


@case
def a_header_of_the_wrong_class_is_505(broker):
    with opened(broker) as peer:
        peer.method(1, spec.Basic.Publish(routing_key="x"))
        peer.send(struct.pack(">BHL", 2, 1, 14) + struct.pack(">HHQH", 50, 0, 0, 0) + b"\xce")
        peer.expect_connection_error(
            505, re.compile("UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead"))


@case
def more_body_than_declared_ends_the_connection(broker):
    with opened(broker) as peer:
        peer.content(1, spec.Basic.Publish(routing_key="x"), b"too long", size=3)
        if not broker.is_rabbitmq_3:  # which waits for more
            close = peer.expect(spec.Connection.Close)
            check(close.reply_code in (501, 502, 505), repr(close))


@case
def a_declared_body_of_two_to_the_63_does_no_harm(broker):
    with opened(broker) as peer, opened(broker) as other:
        peer.content(1, spec.Basic.Publish(routing_key="x"), b"abc", size=2**63)
        peer.send(frame.Body(1, b"more").marshal())
        other.is_alive()


@case
def a_method_on_a_channel_that_is_not_open_is_504(broker):
    with opened(broker) as peer:
        peer.method(9, spec.Basic.Qos())
        peer.expect_connection_error(504, "CHANNEL_ERROR - expected 'channel.open'")


@case
def opening_a_channel_twice_is_504(broker):
    with opened(broker) as peer:
        peer.method(1, spec.Channel.Open())
        close = peer.expect_connection_error(504, "CHANNEL_ERROR - second 'channel.open' seen")
        equal((close.class_id, close.method_id), (20, 10))


@case
def channel_methods_on_channel_zero_end_the_connection(broker):
    with opened(broker) as peer:
        peer.method(0, spec.Channel.Open())
        close = peer.expect(spec.Connection.Close)
        check(close.reply_code in (503, 504, 505, 540, 541), repr(close))


@case
def a_channel_number_above_the_limit_ends_the_connection(broker):
    with opened(broker, channel_max=3) as peer:
        for channel in (2, 3):
            peer.open_channel(channel)
        peer.method(4, spec.Channel.Open())
        close = peer.expect(spec.Connection.Close)
        check(close.reply_code in (504, 530), repr(close))


@case
def a_channel_is_opened_again_after_close(broker):
    with opened(broker) as peer:
        for _ in range(10):
            peer.method(1, spec.Channel.Close(200, "done", 0, 0))
            peer.expect(spec.Channel.CloseOk, 1)
            peer.open_channel(1)
        peer.is_alive()


@case
def methods_on_a_channel_that_the_broker_closed_are_ignored(broker):
    with opened(broker) as peer:
        missing = unique()
        peer.method(1, spec.Queue.Declare(queue=missing, passive=True))
        for _ in range(5):
            peer.method(1, spec.Basic.Qos())
            peer.content(1, spec.Basic.Publish(exchange="no-such", routing_key="x"), b"body")
        close = peer.expect_channel_error(1, 404, f"NOT_FOUND - no queue '{missing}' in vhost '/'")
        equal((close.class_id, close.method_id), (50, 10))
        peer.open_channel(1)
        peer.is_alive()


@case
def both_sides_close_a_channel_at_once(broker):
    with opened(broker) as peer:
        peer.method(1, spec.Queue.Declare(queue=unique(), passive=True))
        peer.method(1, spec.Channel.Close(200, "done", 0, 0))
        close = peer.read_frame().method
        check(isinstance(close, spec.Channel.Close), repr(close))
        peer.method(1, spec.Channel.CloseOk())
        # Our close may be answered or have crossed theirs; the connection lives either way.
        peer.method(3, spec.Channel.Open())
        got = peer.read_frame()
        if isinstance(got.method, spec.Channel.CloseOk):
            got = peer.read_frame()
        check(isinstance(got.method, spec.Channel.OpenOk) and got.channel_number == 3, repr(got))


# Errors whose class and method, or whose method itself, no library shows.


@case
def close_names_the_class_and_method_at_fault(broker):
    with opened(broker) as peer:
        missing = unique()
        for method, code, ids in (
            (spec.Queue.Bind(queue=missing, exchange="amq.direct"), 404, (50, 20)),
            (spec.Exchange.Declare(exchange=missing, passive=True), 404, (40, 10)),
            (spec.Basic.Get(queue=missing), 404, (60, 70)),
            (spec.Basic.Consume(queue=missing), 404, (60, 20)),
            (spec.Basic.Ack(delivery_tag=5), 406, (60, 80)),
            (spec.Tx.Commit(), 406, (90, 20)),
        ):
            peer.method(1, method)
            close = peer.expect(spec.Channel.Close, 1)
            equal((close.reply_code, close.class_id, close.method_id), (code, *ids), method.NAME)
            peer.method(1, spec.Channel.CloseOk())
            peer.open_channel(1)


@case
def publish_with_immediate_is_540(broker):
    with opened(broker) as peer:
        peer.content(1, spec.Basic.Publish(routing_key="x", immediate=True), b"x")
        close = peer.expect_connection_error(540, "NOT_IMPLEMENTED - immediate=true")
        equal((close.class_id, close.method_id), (60, 40))


@case
def names_are_stripped_of_line_ends(broker):
    with opened(broker) as peer:
        name = unique()
        equal(peer.queue(name=f"{name}\r\n"), name)
        peer.method(1, spec.Queue.Declare(queue=f"\n{name}", passive=True))
        equal(peer.expect(spec.Queue.DeclareOk).queue, name)


@case
def no_wait_methods_are_not_answered(broker):
    with opened(broker) as peer:
        queue, exchange = unique(), unique("x")
        peer.method(1, spec.Exchange.Declare(exchange=exchange, type="fanout", auto_delete=True, nowait=True))
        peer.method(1, spec.Queue.Declare(queue=queue, exclusive=True, nowait=True))
        peer.method(1, spec.Queue.Bind(queue=queue, exchange=exchange, nowait=True))
        peer.method(1, spec.Confirm.Select(nowait=True))
        peer.method(1, spec.Queue.Purge(queue=queue, nowait=True))
        peer.method(1, spec.Basic.Consume(queue=queue, consumer_tag="t", no_ack=True, nowait=True))
        peer.method(1, spec.Basic.Cancel(consumer_tag="t", nowait=True))
        peer.content(1, spec.Basic.Publish(exchange=exchange), b"x")
        equal(peer.expect(spec.Basic.Ack).delivery_tag, 1)
        peer.method(1, spec.Basic.Get(queue=queue, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        equal(peer.read_frame().body_size, 1)
        peer.read_frame()
        peer.method(1, spec.Queue.Delete(queue=queue, nowait=True))
        peer.method(1, spec.Exchange.Delete(exchange=exchange, nowait=True))
        peer.is_alive()


@case
def a_no_wait_error_still_closes_the_channel(broker):
    with opened(broker) as peer:
        peer.method(1, spec.Queue.Bind(queue=unique(), exchange="amq.direct", nowait=True))
        peer.expect_channel_error(1, 404, re.compile("NOT_FOUND - no queue '.*' in vhost '/'"))


@case
def every_field_type_comes_back_octet_by_octet(broker):
    # Name and value as they are on the wire: what comes back must be the same octets.
    fields = b"".join(
        struct.pack("B", len(name)) + name + value
        for name, value in (
            (b"t", b"t\x01"),
            (b"b", b"b\xfb"),
            (b"B", b"B\xfb"),
            (b"s", b"s\xff\x00"),
            (b"u", b"u\xff\x00"),
            (b"I", b"I" + struct.pack(">i", -(2**31))),
            (b"i", b"i" + struct.pack(">I", 2**32 - 1)),
            (b"l", b"l" + struct.pack(">q", -(2**63))),
            (b"f", b"f" + struct.pack(">f", 1.5)),
            (b"d", b"d" + struct.pack(">d", -2.25)),
            (b"D", b"D\x02" + struct.pack(">I", 314)),
            (b"S", b"S" + struct.pack(">I", 3) + b"\xff\x00\xfe"),
            (b"T", b"T" + struct.pack(">Q", 1_700_000_000)),
            (b"V", b"V"),
            (b"x", b"x" + struct.pack(">I", 2) + b"\x00\xff"),
            (b"A", b"A" + struct.pack(">I", 5) + b"b\x01t\x00V"),
            (b"F", b"F" + struct.pack(">I", 4) + b"\x01kb\x07"),
            (b"", b"t\x00"),
        )
    )
    table = struct.pack(">I", len(fields)) + fields
    header = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + table
    with opened(broker) as peer:
        name = peer.queue()
        peer.method(1, spec.Basic.Publish(routing_key=name))
        peer.send(struct.pack(">BHL", 2, 1, len(header)) + header + b"\xce")
        peer.method(1, spec.Basic.Get(queue=name, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        while len(peer.buffer) < 7 + len(header) + 1:
            data = peer.socket.recv(65536)
            check(data, "the connection was closed")
            peer.buffer += data
        check(peer.buffer == struct.pack(">BHL", 2, 1, len(header)) + header + b"\xce",
              f"the header came as {peer.buffer!r}")


@case
def a_signed_long_of_type_capital_l_is_taken(broker):
    fields = b"\x01LL" + struct.pack(">q", 2**40)
    header = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + struct.pack(">I", len(fields)) + fields
    with opened(broker) as peer:
        name = peer.queue()
        peer.method(1, spec.Basic.Publish(routing_key=name))
        peer.send(struct.pack(">BHL", 2, 1, len(header)) + header + b"\xce")
        peer.method(1, spec.Basic.Get(queue=name, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        equal(peer.read_frame().properties.headers, {"L": 2**40})


@case
def frames_to_the_client_keep_the_agreed_size(broker):
    with opened(broker, frame_max=4096) as peer:
        name = peer.queue()
        body = bytes(range(250)) * 60
        peer.method(1, spec.Basic.Publish(routing_key=name))
        peer.send(frame.Header(1, len(body), pika.BasicProperties()).marshal())
        for at in range(0, len(body), 1000):
            peer.send(frame.Body(1, body[at : at + 1000]).marshal())
        peer.method(1, spec.Basic.Get(queue=name, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        equal(peer.read_frame().body_size, len(body))
        pieces = []
        while sum(map(len, pieces)) < len(body):
            pieces.append(peer.read_frame().fragment)
        check(all(len(piece) <= 4096 - 8 for piece in pieces), "a frame above the limit")
        check(b"".join(pieces) == body, "the body changed")


@case
def a_zero_length_message_has_no_body_frame(broker):
    with opened(broker) as peer:
        name = peer.queue()
        peer.content(1, spec.Basic.Publish(routing_key=name), b"")
        peer.method(1, spec.Basic.Get(queue=name, no_ack=True))
        peer.expect(spec.Basic.GetOk)
        equal(peer.read_frame().body_size, 0)
        peer.is_alive()


@case
def the_confirm_numbers_start_at_one_on_each_channel(broker):
    with opened(broker, channels=(1, 2)) as peer:
        name = peer.queue()
        for channel in (1, 2):
            peer.method(channel, spec.Confirm.Select())
            peer.expect(spec.Confirm.SelectOk, channel)
            for number in (1, 2, 3):
                peer.content(channel, spec.Basic.Publish(routing_key=name), b"x")
                equal(peer.expect(spec.Basic.Ack, channel).delivery_tag, number)


@case
def update_secret_is_answered(broker):
    with opened(broker) as peer:
        peer.method(0, spec.Connection.UpdateSecret("guest", "renewed"))
        peer.expect(spec.Connection.UpdateSecretOk, 0)
        peer.is_alive()


@case
def a_consumer_that_never_reads_harms_nobody(broker):
    with opened(broker) as deaf, opened(broker) as other:
        name = unique()
        other.method(1, spec.Queue.Declare(queue=name, auto_delete=True))
        other.expect(spec.Queue.DeclareOk)
        deaf.method(1, spec.Basic.Consume(queue=name, consumer_tag="deaf", no_ack=True))
        deaf.expect(spec.Basic.ConsumeOk)
        for _ in range(200):
            other.content(1, spec.Basic.Publish(routing_key=name), b"x" * 100_000)
        other.is_alive()
        with opened(broker) as third:
            third.is_alive()


@case
def a_client_that_vanishes_in_the_middle_of_a_message(broker):
    with opened(broker) as other:
        name = other.queue()
        for cut in (1, 2, 3):
            peer = opened(broker)
            peer.method(1, spec.Basic.Publish(routing_key=name))
            if cut > 1:
                peer.send(frame.Header(1, 1000, pika.BasicProperties()).marshal())
            if cut > 2:
                peer.send(frame.Body(1, b"x" * 500).marshal()[:-100])
            peer.socket.close()
        other.method(1, spec.Queue.Declare(queue=name, passive=True))
        equal(other.expect(spec.Queue.DeclareOk).message_count, 0)


def prepare(broker):
    with opened(broker) as peer:
        properties = peer.server_properties
    broker.is_rabbitmq_3 = properties.get("product") == "RabbitMQ" and properties.get("version", "").startswith("3.")


if __name__ == "__main__":
    harness.main(prepare, jobs=6)
