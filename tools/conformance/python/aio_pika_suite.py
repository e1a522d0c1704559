"""The suite of aio-pika."""

import asyncio
import functools

import aio_pika
import aiormq.exceptions
from aio_pika import DeliveryMode, ExchangeType, Message

import harness
from harness import WAIT_SECONDS, check, equal, matches, unique


def case(function):
    """A case that is a coroutine and gets a connection and a channel, closed at its end."""

    async def with_connection(broker):
        connection = await aio_pika.connect(broker.url(), timeout=WAIT_SECONDS)
        try:
            await asyncio.wait_for(function(broker, connection, await connection.channel()), WAIT_SECONDS * 2)
        finally:
            await connection.close()

    @functools.wraps(function)
    def run(broker):
        asyncio.run(with_connection(broker))

    return harness.case(run)


async def eventually(probe, what):
    async def poll():
        while not await probe():
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(poll(), WAIT_SECONDS)
    except asyncio.TimeoutError:
        raise AssertionError(f"{what}: not within {WAIT_SECONDS} s") from None


async def refused(awaitable, kind, text):
    try:
        await awaitable
    except kind as error:
        matches(str(error), f".*{text}.*")
        return
    raise AssertionError(f"no error where {text!r} is due")


async def bodies(queue, count):
    got = []

    async def enough():
        message = await queue.get(no_ack=True, fail=False)
        if message is not None:
            got.append(message.body)
        return len(got) == count

    await eventually(enough, f"{count} messages")
    check(await queue.get(no_ack=True, fail=False) is None, "one too many")
    return got


@case
async def connects(broker, connection, channel):
    check(not connection.is_closed)
    check(connection.transport.connection.server_properties["product"])
    await (await connection.channel()).close()


@case
async def bad_password_is_403(broker, connection, channel):
    await refused(aio_pika.connect(broker.url(password="wrong")), Exception, "ACCESS_REFUSED - Login was refused")


@case
async def unknown_vhost_is_530(broker, connection, channel):
    await refused(aio_pika.connect(broker.url(vhost="nowhere")), Exception, "(NOT_ALLOWED - vhost nowhere not found|Connection.Close)")


@case
async def every_exchange_type(broker, connection, channel):
    for kind, bindings, expected in (
        (ExchangeType.DIRECT, [("a", None), ("b", None)], [[b"a"], [b"b"]]),
        (ExchangeType.FANOUT, [("", None), ("", None)], [[b"a", b"b", b"a.x"], [b"a", b"b", b"a.x"]]),
        (ExchangeType.TOPIC, [("a.#", None), ("*", None)], [[b"a", b"a.x"], [b"a", b"b"]]),
        (ExchangeType.HEADERS, [("", {"x-match": "all", "k": "a"}), ("", {"x-match": "any", "k": "b", "z": 1})],
         [[b"a"], [b"b"]]),
    ):
        exchange = await channel.declare_exchange(unique("x"), kind, auto_delete=True)
        queues = []
        for key, arguments in bindings:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, key, arguments=arguments)
            queues.append(queue)
        for key in ("a", "b", "a.x"):
            await exchange.publish(Message(key.encode(), headers={"k": key}), key, mandatory=False)
        for queue, wanted in zip(queues, expected):
            equal(await bodies(queue, len(wanted)), wanted, str(kind))


@case
async def exchange_to_exchange_and_alternate(broker, connection, channel):
    last = await channel.declare_exchange(unique("x"), ExchangeType.FANOUT, auto_delete=True)
    entry = await channel.declare_exchange(
        unique("x"), ExchangeType.DIRECT, auto_delete=True, arguments={"alternate-exchange": last.name})
    bound = await channel.declare_exchange(unique("x"), ExchangeType.FANOUT, auto_delete=True)
    await bound.bind(entry, "k")
    one, two = await channel.declare_queue(exclusive=True), await channel.declare_queue(exclusive=True)
    await one.bind(bound)
    await two.bind(last)
    await entry.publish(Message(b"1"), "k")
    await entry.publish(Message(b"2"), "other")
    equal(await bodies(one, 1), [b"1"])
    equal(await bodies(two, 1), [b"2"])


@case
async def queues_named_passive_purged_deleted(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    check(queue.name.startswith("amq.gen-"))
    for _ in range(3):
        await channel.default_exchange.publish(Message(b"x"), queue.name)
    again = await channel.declare_queue(queue.name, passive=True)
    equal(again.declaration_result.message_count, 3)
    equal((await queue.purge()).message_count, 3)
    await channel.default_exchange.publish(Message(b"x"), queue.name)
    equal((await queue.delete(if_empty=False)).message_count, 1)


@case
async def errors_with_code_and_text(broker, connection, channel):
    missing = unique()
    await refused(channel.declare_queue(missing, passive=True), aiormq.exceptions.ChannelNotFoundEntity,
                  f"NOT_FOUND - no queue '{missing}' in vhost '/'")
    channel = await connection.channel()
    await channel.declare_queue(missing, exclusive=True)
    await refused(channel.declare_queue(missing, exclusive=True, arguments={"x-max-length": 1}),
                  aiormq.exceptions.ChannelPreconditionFailed,
                  f"inequivalent arg 'x-max-length' for queue '{missing}' in vhost '/'")
    other = await aio_pika.connect(broker.url())
    channel = await other.channel()
    await refused(channel.declare_queue(missing, passive=True), aiormq.exceptions.ChannelLockedResource,
                  "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue")
    channel = await other.channel()
    await refused(channel.declare_exchange("amq.new"), aiormq.exceptions.ChannelAccessRefused,
                  "ACCESS_REFUSED - exchange name 'amq.new' contains reserved prefix")
    await other.close()
    check(not connection.is_closed, "a channel error closed the connection")


@case
async def acknowledgements_of_all_kinds(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    for number in range(6):
        await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
    messages = [await queue.get() for _ in range(6)]
    await messages[1].ack(multiple=True)
    await messages[2].reject(requeue=True)
    await messages[3].nack(requeue=False)
    await messages[4].nack(requeue=True)
    equal([m.redelivered for m in messages], [False] * 6)
    got = []

    async def two_are_back():
        message = await queue.get(fail=False)
        if message:
            got.append((message.body, message.redelivered))
        return len(got) == 2

    await eventually(two_are_back, "the requeued ones")
    equal(got, [(b"2", True), (b"4", True)])


@case
async def context_managers_and_iterators(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    for number in range(20):
        await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
    got = []
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process():
                got.append(int(message.body))
            if len(got) == 20:
                break
    equal(got, list(range(20)))
    await channel.default_exchange.publish(Message(b"fails"), queue.name)
    message = await queue.get()
    try:
        async with message.process(requeue=True):
            raise ValueError
    except ValueError:
        pass
    equal((await queue.get(fail=False, timeout=5)).redelivered, True)


@case
async def prefetch(broker, connection, channel):
    await channel.set_qos(prefetch_count=3)
    queue = await channel.declare_queue(exclusive=True)
    got = []
    await queue.consume(lambda message: _keep(got, message))
    for number in range(10):
        await channel.default_exchange.publish(Message(b"x"), queue.name)

    async def counts():
        state = await channel.declare_queue(queue.name, passive=True)
        return len(got) == 3 and state.declaration_result.message_count == 7

    await eventually(counts, "three of ten are out")
    await got[0].ack()

    async def one_more():
        return len(got) == 4

    await eventually(one_more, "one more")


async def _keep(got, message):
    got.append(message)


@case
async def confirms_in_flight(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    answers = await asyncio.gather(*(
        channel.default_exchange.publish(Message(b"%d" % number), queue.name) for number in range(3000)))
    check(all(type(answer).__name__ == "Ack" for answer in answers), "not all are acked")
    equal((await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count, 3000)


@case
async def nacks(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    await channel.default_exchange.publish(Message(b"1"), queue.name)
    try:
        await channel.default_exchange.publish(Message(b"2"), queue.name)
        raise AssertionError("not nacked")
    except aio_pika.exceptions.DeliveryError:
        pass


@case
async def returns(broker, connection, channel):
    channel = await connection.channel(on_return_raises=True)
    try:
        await channel.default_exchange.publish(Message(b"lost", message_id="m"), unique(), mandatory=True)
        raise AssertionError("not returned")
    except aio_pika.exceptions.DeliveryError as error:
        equal(error.message.delivery.reply_code, 312)
        equal(error.message.body, b"lost")


@case
async def transactions(broker, connection, channel):
    channel = await connection.channel(publisher_confirms=False)
    queue = await channel.declare_queue(exclusive=True)
    async with channel.transaction():
        await channel.default_exchange.publish(Message(b"yes"), queue.name)
    try:
        async with channel.transaction():
            await channel.default_exchange.publish(Message(b"no"), queue.name)
            raise ValueError
    except ValueError:
        pass
    equal(await bodies(queue, 1), [b"yes"])


@case
async def properties_and_headers(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    headers = {"i": 1, "l": 2**40, "s": "ö", "b": True, "n": None, "t": {"x": [1, "2"]}, "f": 1.5}
    await channel.default_exchange.publish(Message(
        b"x", headers=headers, content_type="text/plain", content_encoding="identity", priority=4,
        delivery_mode=DeliveryMode.PERSISTENT, correlation_id="c", reply_to="r", message_id="m", type="t",
        user_id="guest", app_id="a", expiration=60), queue.name)
    message = await queue.get(no_ack=True)
    equal(dict(message.headers), headers)
    equal((message.content_type, message.content_encoding, message.priority, message.correlation_id, message.reply_to,
           message.message_id, message.type, message.user_id, message.app_id),
          ("text/plain", "identity", 4, "c", "r", "m", "t", "guest", "a"))
    equal(float(message.expiration), 60.0)


@case
async def large_and_empty_bodies(broker, connection, channel):
    queue = await channel.declare_queue(exclusive=True)
    large = bytes(range(256)) * 20_000
    for body in (large, b""):
        await channel.default_exchange.publish(Message(body), queue.name)
    check((await queue.get(no_ack=True)).body == large, "the body changed")
    equal((await queue.get(no_ack=True)).body, b"")


@case
async def dead_letters_time_outs_priorities(broker, connection, channel):
    dead = await channel.declare_queue(exclusive=True)
    queue = await channel.declare_queue(exclusive=True, arguments={
        "x-max-priority": 3, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
    for priority in (1, 3, 2):
        await channel.default_exchange.publish(Message(b"%d" % priority, priority=priority), queue.name)
    message = await queue.get()
    equal(message.body, b"3")
    await message.reject(requeue=False)
    expiring = await channel.declare_queue(exclusive=True, arguments={
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})
    await channel.default_exchange.publish(Message(b"soon", expiration=0.02), expiring.name)
    got = []

    async def two():
        message = await dead.get(no_ack=True, fail=False)
        if message:
            got.append((message.body, message.headers["x-death"][0]["reason"]))
        return len(got) == 2

    await eventually(two, "two dead letters")
    equal([(body, reason.decode() if isinstance(reason, bytes) else reason) for body, reason in got],
          [(b"3", "rejected"), (b"soon", "expired")])


@case
async def remote_calls_by_direct_reply_to(broker, connection, channel):
    requests = await channel.declare_queue(exclusive=True)

    async def serve(message):
        async with message.process():
            await channel.default_exchange.publish(
                Message(message.body[::-1], correlation_id=message.correlation_id), message.reply_to)

    await requests.consume(serve)
    client = await connection.channel()
    replies = {}
    # The pseudo queue cannot be declared, so consume below aio-pika.
    underlay = await client.get_underlay_channel()

    async def on_reply(message):
        replies[message.header.properties.correlation_id] = message.body

    await underlay.basic_consume("amq.rabbitmq.reply-to", on_reply, no_ack=True)
    for number in range(10):
        await client.default_exchange.publish(
            Message(b"%d!" % number, correlation_id=str(number), reply_to="amq.rabbitmq.reply-to"), requests.name)

    async def all_of_them():
        return len(replies) == 10

    await eventually(all_of_them, "ten replies")
    equal({key: bytes(body) for key, body in replies.items()}, {str(n): b"!%d" % n for n in range(10)})


@case
async def consumer_is_told_of_a_deleted_queue(broker, connection, channel):
    queue = await channel.declare_queue(unique())
    other = await connection.channel()
    ended = asyncio.Event()
    underlay = await channel.get_underlay_channel()
    await queue.consume(lambda message: None, consumer_tag="tag")
    await other.queue_delete(queue.name) if hasattr(other, "queue_delete") else await (
        await other.get_queue(queue.name)).delete(if_unused=False)

    async def forgotten():
        if "tag" not in underlay.consumers:
            ended.set()
        return ended.is_set()

    await eventually(forgotten, "the cancellation")


@case
async def heartbeats_keep_an_idle_connection(broker, connection, channel):
    idle = await aio_pika.connect(broker.url() + "?heartbeat=1")
    await asyncio.sleep(3.3)
    await (await idle.channel()).declare_queue(exclusive=True)
    await idle.close()


@case
async def update_secret(broker, connection, channel):
    await connection.update_secret("guest", reason="renewed")
    await channel.declare_queue(exclusive=True)


class Relay:
    """Passes octets on to the broker until the connection is cut, as a network does."""

    def __init__(self, broker):
        self.broker = broker
        self.writers = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        self.cut()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def _accept(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection(self.broker.host, self.broker.port)
        self.writers += [writer, far_writer]
        await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        writer.close()


@case
async def a_robust_connection_comes_back(broker, connection, channel):
    async with Relay(broker) as relay:
        robust = await aio_pika.connect_robust(relay.url, reconnect_interval=0.05)
        name = unique()
        queue = await (await robust.channel()).declare_queue(name, auto_delete=True)
        got = asyncio.Queue()
        await queue.consume(got.put, no_ack=True)
        relay.cut()

        async def delivered():
            publisher = await connection.channel(on_return_raises=True)
            try:
                await publisher.default_exchange.publish(Message(b"again"), name, mandatory=True)
                await asyncio.wait_for(got.get(), 0.5)
            except (aio_pika.exceptions.DeliveryError, asyncio.TimeoutError):
                return False
            finally:
                await publisher.close()
            return True

        await eventually(delivered, "the consumer is back")
        await robust.close()


@case
async def twenty_thousand_messages(broker, connection, channel):
    count = 20_000
    channel = await connection.channel(publisher_confirms=False)
    await channel.set_qos(prefetch_count=500)
    queue = await channel.declare_queue(exclusive=True)
    got = []
    done = asyncio.Event()

    async def on_message(message):
        got.append(int(message.body))
        if len(got) % 100 == 0:
            await message.ack(multiple=True)
        if len(got) == count:
            done.set()

    await queue.consume(on_message)
    for number in range(count):
        await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
    await asyncio.wait_for(done.wait(), WAIT_SECONDS * 2)
    equal(got, list(range(count)))


def prepare(broker):
    import logging

    logging.disable(logging.CRITICAL)
    del broker


if __name__ == "__main__":
    harness.main(prepare)
