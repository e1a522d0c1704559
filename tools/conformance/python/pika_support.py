"""Sessions, inboxes and expectations for the suites that drive pika's blocking adapter."""

import contextlib
import time

import pika
import pika.exceptions

from harness import WAIT_SECONDS, check, equal, eventually, text_is, unique


def parameters(broker, user="guest", password="guest", vhost="/", **more):
    return pika.ConnectionParameters(
        host=broker.host,
        port=broker.port,
        virtual_host=vhost,
        credentials=pika.PlainCredentials(user, password),
        socket_timeout=WAIT_SECONDS,
        stack_timeout=WAIT_SECONDS,
        blocked_connection_timeout=WAIT_SECONDS,
        **more,
    )


class Session:
    """One connection with one channel, which forgets nothing it declared: leaving it deletes all of that."""

    def __init__(self, broker, **more):
        self.broker = broker
        self.more = more
        self.connection = pika.BlockingConnection(parameters(broker, **more))
        self.channel = self.connection.channel()
        self.queues = []
        self.exchanges = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.connection.is_closed and (self.queues or self.exchanges):
            self.connection = pika.BlockingConnection(parameters(self.broker, **self.more))
        if self.connection.is_open:
            with contextlib.suppress(pika.exceptions.AMQPError):
                channel = self.connection.channel()
                for queue in self.queues:
                    channel.queue_delete(queue)
                for exchange in self.exchanges:
                    channel.exchange_delete(exchange)
            with contextlib.suppress(pika.exceptions.AMQPError):
                self.connection.close()

    def queue(self, name=None, arguments=None, exclusive=True, **more):
        """Declares a queue and returns its name. Exclusive unless told otherwise."""
        name = unique() if name is None else name
        result = self.channel.queue_declare(name, exclusive=exclusive, arguments=arguments, **more)
        if not exclusive:
            self.queues.append(result.method.queue)
        return result.method.queue

    def exchange(self, kind, name=None, **more):
        name = unique("x") if name is None else name
        self.channel.exchange_declare(name, kind, **more)
        self.exchanges.append(name)
        return name

    def publish(self, queue, *bodies, channel=None, **properties):
        """Publishes to a queue by way of the default exchange."""
        for body in bodies:
            (channel or self.channel).basic_publish("", queue, body, pika.BasicProperties(**properties))

    def ready(self, queue):
        """How many messages are ready, by a passive declare on a channel of its own."""
        return self.state(queue).message_count

    def state(self, queue):
        channel = self.connection.channel()
        method = channel.queue_declare(queue, passive=True).method
        channel.close()
        return method

    def bodies(self, queue, count=None):
        """Gets (and acknowledges) all that is ready; waits until there are `count`."""
        if count is not None:
            eventually(lambda: self.ready(queue) >= count, f"{count} messages in {queue}")
        bodies = []
        while True:
            method, _, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            bodies.append(body)
        if count is not None:
            equal(len(bodies), count, "number of messages")
        return bodies

    def get(self, queue, auto_ack=False):
        """Gets one message, waiting for it. Returns (method, properties, body)."""

        def probe():
            got = self.channel.basic_get(queue, auto_ack=auto_ack)
            return got if got[0] is not None else None

        return eventually(probe, f"a message in {queue}")

    def confirming(self):
        channel = self.connection.channel()
        channel.confirm_delivery()
        return channel

    def barrier(self, channel=None):
        """A call whose answer comes after all that was sent before on the channel was handled."""
        (channel or self.channel).basic_qos(prefetch_count=0)

    def pump_until(self, probe, what):
        end = time.monotonic() + WAIT_SECONDS
        while not probe():
            check(time.monotonic() < end, f"{what}: not within {WAIT_SECONDS} s")
            self.connection.process_data_events(time_limit=0.2)


class Inbox:
    """A consumer that keeps what it gets."""

    def __init__(self, session, queue, channel=None, auto_ack=True, **more):
        self.session = session
        self.channel = channel or session.channel
        self.methods, self.properties, self.bodies = [], [], []
        self.tag = self.channel.basic_consume(queue, self._on_message, auto_ack=auto_ack, **more)

    def _on_message(self, _channel, method, properties, body):
        self.methods.append(method)
        self.properties.append(properties)
        self.bodies.append(body)

    def wait(self, count):
        self.session.pump_until(lambda: len(self.bodies) >= count, f"{count} deliveries (has {len(self.bodies)})")
        equal(len(self.bodies), count, "number of deliveries")
        return self.bodies

    def ack_last(self, multiple=False):
        self.channel.basic_ack(self.methods[-1].delivery_tag, multiple=multiple)


@contextlib.contextmanager
def channel_closes(session, code, text, channel=None, connection_too=False):
    """The block makes the broker close the channel so; the connection lives on and gets a new channel."""
    channel = channel or session.channel
    error = None
    try:
        yield channel
        session.barrier(channel)
    except pika.exceptions.ChannelClosedByBroker as caught:
        error = caught
    check(error is not None, f"the channel stays open where {code} {text!r} is due")
    equal(error.reply_code, code, f"reply code (text: {error.reply_text!r})")
    text_is(error.reply_text, text)
    check(session.connection.is_open, "a channel error closed the connection")
    if channel is session.channel:
        session.channel = session.connection.channel()
    else:
        session.connection.channel().close()


@contextlib.contextmanager
def connection_closes(session, code, text):
    """The block makes the broker close the connection so."""
    error = None
    try:
        yield session.channel
        session.barrier()
    except pika.exceptions.ConnectionClosedByBroker as caught:
        error = caught
    check(error is not None, f"the connection stays open where {code} {text!r} is due")
    equal(error.reply_code, code, f"reply code (text: {error.reply_text!r})")
    text_is(error.reply_text, text)


def refused_login(broker, **more):
    """Connects, which must fail, and returns the error that says why: the innermost one that has a reply code."""
    try:
        pika.BlockingConnection(parameters(broker, **more)).close()
    except pika.exceptions.AMQPError as error:
        return error
    raise AssertionError("connected where a refusal is due")
