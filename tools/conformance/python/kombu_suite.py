"""The suite of kombu, on py-amqp: what frameworks are built from."""

import socket
import time

import amqp.exceptions
import kombu
from kombu.pools import connections, producers

import harness
from harness import WAIT_SECONDS, case, check, equal, eventually, matches, unique


def connect(broker, **more):
    return kombu.Connection(broker.url(), connect_timeout=WAIT_SECONDS, **more)


def drain_until(connection, probe, what):
    end = time.monotonic() + WAIT_SECONDS
    while not probe():
        check(time.monotonic() < end, f"{what}: not within {WAIT_SECONDS} s")
        try:
            connection.drain_events(timeout=0.2)
        except socket.timeout:
            pass


def refused(function, kind, code, text):
    try:
        function()
    except kind as error:
        equal(error.reply_code, code)
        matches(error.reply_text, text)
        return
    raise AssertionError(f"no {code}")


@case
def connects_and_knows_the_broker(broker):
    with connect(broker) as connection:
        connection.ensure_connection(max_retries=1)
        check(connection.connected)
        check(connection.supports_heartbeats)
        check(connection.connection.server_properties["product"])


@case
def bad_password_is_403(broker):
    connection = kombu.Connection(broker.url(password="wrong"))
    refused(connection.connect, amqp.exceptions.AccessRefused, 403, "ACCESS_REFUSED - Login was refused.*")


@case
def unknown_vhost_is_530(broker):
    connection = kombu.Connection(broker.url(vhost="nowhere"))
    refused(connection.connect, amqp.exceptions.NotAllowed, 530, "NOT_ALLOWED - vhost nowhere not found")


def exchange_and_queues(kind, *bindings):
    exchange = kombu.Exchange(unique("x"), kind, durable=False, auto_delete=True)
    queues = [
        kombu.Queue(unique(), exchange, routing_key=key, exclusive=True, binding_arguments=arguments)
        for key, arguments in bindings
    ]
    return exchange, queues


def take_all(channel, queue):
    bound = queue(channel)
    messages = []
    while True:
        message = bound.get(no_ack=True)
        if message is None:
            return messages
        messages.append(message.payload)


@case
def every_exchange_type(broker):
    for kind, bindings, keys, expected in (
        ("direct", [("a", None), ("b", None)], ["a", "b", "c"], [["a"], ["b"]]),
        ("fanout", [("", None), ("", None)], ["a", "b"], [["a", "b"], ["a", "b"]]),
        ("topic", [("*.x", None), ("a.#", None)], ["a.x", "b.x", "a"], [["a.x", "b.x"], ["a.x", "a"]]),
        ("headers", [("", {"x-match": "all", "h": "1"}), ("", {"x-match": "any", "h": "2", "i": 1})],
         ["1", "2"], [["1"], ["2"]]),
    ):
        with connect(broker) as connection:
            channel = connection.channel()
            exchange, queues = exchange_and_queues(kind, *bindings)
            for queue in queues:
                queue(channel).declare()
            producer = kombu.Producer(channel, exchange(channel))
            for key in keys:
                producer.publish(key, routing_key=key, headers={"h": key})
            for queue, bodies in zip(queues, expected):
                eventually(lambda: queue(channel).queue_declare(passive=True).message_count == len(bodies), kind)
                equal(take_all(channel, queue), bodies, kind)


def simple_queue(connection):
    return connection.SimpleQueue(
        unique(), queue_opts={"exclusive": True, "durable": False},
        exchange_opts={"type": "direct", "durable": False, "auto_delete": True})


@case
def serializers(broker):
    with connect(broker) as connection:
        queue = simple_queue(connection)
        for serializer, value in (("json", {"a": [1, 2.5, None, "ö"]}), ("pickle", (1, {2})), ("raw", b"\x00\xff")):
            queue.put(value, serializer=serializer, compression="zlib" if serializer == "json" else None)
        queue.consumer.accept = {"application/json", "application/x-python-serialize", "application/data"}
        equal(queue.get(timeout=5).decode(), {"a": [1, 2.5, None, "ö"]})
        message = queue.get(timeout=5)
        equal(message.content_type, "application/x-python-serialize")
        message.ack()
        equal(bytes(queue.get(timeout=5).body), b"\x00\xff")
        queue.close()


@case
def simple_queues_and_buffers(broker):
    with connect(broker) as connection:
        queue = simple_queue(connection)
        for number in range(50):
            queue.put({"n": number})
        eventually(lambda: len(queue) == 50, "fifty")
        for number in range(50):
            message = queue.get(timeout=5)
            equal(message.payload, {"n": number})
            message.ack()
        try:
            queue.get(timeout=0.05)
            raise AssertionError("one too many")
        except queue.Empty:
            pass
        queue.close()


@case
def acknowledgements_of_all_kinds(broker):
    with connect(broker) as connection:
        channel = connection.channel()
        name = unique()
        queue = kombu.Queue(name, exclusive=True)(channel)
        queue.declare()
        got = []
        consumer = kombu.Consumer(channel, [queue], callbacks=[lambda body, message: got.append(message)])
        consumer.qos(prefetch_count=10)
        consumer.consume()
        producer = kombu.Producer(channel)
        for number in range(4):
            producer.publish(number, routing_key=name)
        drain_until(connection, lambda: len(got) == 4, "four messages")
        got[0].ack()
        got[1].reject()
        got[2].requeue()
        drain_until(connection, lambda: len(got) == 5, "the requeued one")
        equal((got[4].payload, got[4].delivery_info["redelivered"]), (2, True))
        got[4].ack(multiple=True)
        equal(queue.queue_declare(passive=True).message_count, 0)
        got[3].ack()  # covered by the one before: the channel finds out

        def is_closed():
            try:
                channel.queue_declare(name, passive=True)
            except amqp.exceptions.PreconditionFailed as error:
                matches(error.reply_text, r"PRECONDITION_FAILED - unknown delivery tag \d+")
                return True
            return False

        check(got[3].acknowledged)
        check(is_closed())


@case
def prefetch(broker):
    with connect(broker) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True)(channel)
        queue.declare()
        got = []
        consumer = kombu.Consumer(channel, [queue], callbacks=[lambda body, message: got.append(message)])
        consumer.qos(prefetch_count=2)
        producer = kombu.Producer(channel)
        for number in range(6):
            producer.publish(number, routing_key=queue.name)
        consumer.consume()
        drain_until(connection, lambda: len(got) == 2, "two")
        equal(queue.queue_declare(passive=True).message_count, 4)
        got[0].ack()
        drain_until(connection, lambda: len(got) == 3, "one more")
        equal(queue.queue_declare(passive=True).message_count, 3)


@case
def confirms(broker):
    with connect(broker, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True, queue_arguments={
            "x-max-length": 3, "x-overflow": "reject-publish"})(channel)
        queue.declare()
        producer = kombu.Producer(channel)
        for number in range(3):
            producer.publish(number, routing_key=queue.name)
        refusals = 0
        try:
            producer.publish(3, routing_key=queue.name)
        except amqp.exceptions.MessageNacked:
            refusals += 1
        equal(refusals, 1)
        equal(queue.queue_declare(passive=True).message_count, 3)


@case
def returns(broker):
    with connect(broker) as connection:
        channel = connection.channel()
        returned = []
        producer = kombu.Producer(channel, on_return=lambda *all_of_it: returned.append(all_of_it))
        missing = unique()
        producer.publish({"x": 1}, routing_key=missing, mandatory=True)
        drain_until(connection, lambda: returned, "the return")
        exception, exchange, routing_key, message = returned[0]
        equal((exception.reply_code, exception.reply_text), (312, "NO_ROUTE"))
        equal((exchange, routing_key, message.body), ("", missing, '{"x": 1}'))


@case
def channel_errors_with_code_and_text(broker):
    with connect(broker) as connection:
        name = unique()
        channel = connection.channel()
        refused(lambda: channel.queue_declare(name, passive=True), amqp.exceptions.NotFound, 404,
                f"NOT_FOUND - no queue '{name}' in vhost '/'")
        channel = connection.channel()
        channel.queue_declare(name, exclusive=True, auto_delete=False)
        refused(lambda: channel.queue_declare(name, exclusive=True, auto_delete=True),
                amqp.exceptions.PreconditionFailed, 406,
                f"PRECONDITION_FAILED - inequivalent arg 'auto_delete' for queue '{name}' in vhost '/': "
                "received 'true' but current is 'false'")
        with connect(broker) as other:
            refused(lambda: other.channel().queue_declare(name, passive=True), amqp.exceptions.ResourceLocked, 405,
                    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue .*")
        channel = connection.channel()
        refused(lambda: channel.exchange_declare("amq.x-new", "direct"), amqp.exceptions.AccessRefused, 403,
                r"ACCESS_REFUSED - exchange name 'amq.x-new' contains reserved prefix 'amq.\*'")
        connection.channel().close()


@case
def consumer_is_told_of_a_deleted_queue(broker):
    with connect(broker) as connection, connect(broker) as other:
        channel = connection.channel()
        name = unique()
        queue = kombu.Queue(name, durable=False)(channel)
        queue.declare()
        cancelled = []
        queue.consume("tag", callback=lambda message: None)
        channel.connection.on_cancel = None
        channel.cancel_callbacks = {"tag": lambda tag: cancelled.append(tag)}
        other.channel().queue_delete(name)
        drain_until(connection, lambda: cancelled == ["tag"], "the cancellation")


@case
def transactions(broker):
    with connect(broker) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True)(channel)
        queue.declare()
        channel.tx_select()
        producer = kombu.Producer(channel)
        producer.publish("no", routing_key=queue.name)
        channel.tx_rollback()
        producer.publish("yes", routing_key=queue.name)
        channel.tx_commit()
        equal(take_all(channel, queue), ["yes"])


@case
def time_outs_bounds_priorities_and_dead_letters(broker):
    with connect(broker) as connection:
        channel = connection.channel()
        dead = kombu.Queue(unique(), exclusive=True)(channel)
        dead.declare()
        queue = kombu.Queue(
            unique(), exclusive=True, max_priority=5, message_ttl=0.2, expires=60.0, max_length=3,
            queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead.name})(channel)
        queue.declare()
        producer = kombu.Producer(channel)
        for number in range(3):
            producer.publish(number, routing_key=queue.name, priority=number)
        message = queue.get(no_ack=True)
        equal(message.payload, 2, "the highest priority")
        eventually(lambda: dead.queue_declare(passive=True).message_count == 2, "two expire")
        message = dead.get(no_ack=True)
        equal(message.headers["x-death"][0]["reason"], "expired")


@case
def large_bodies(broker):
    body = bytes(range(256)) * 16384
    with connect(broker) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True)(channel)
        queue.declare()
        producer = kombu.Producer(channel)
        for one in (body, b""):
            producer.publish(one, routing_key=queue.name, serializer="raw")
        for one in (body, b""):
            message = eventually(lambda: queue.get(no_ack=True), "a message")
            check(bytes(message.body or b"") == one, "the body changed")


@case
def header_values(broker):
    headers = {"s": "ö", "i": -1, "l": 2**40, "b": True, "f": 1.5, "n": None, "t": {"x": [1, "2", {"y": 3}]}}
    with connect(broker) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True)(channel)
        queue.declare()
        kombu.Producer(channel).publish("x", routing_key=queue.name, headers=headers, correlation_id="c", reply_to="r")
        message = eventually(lambda: queue.get(no_ack=True), "a message")
        equal(message.headers, headers)
        equal((message.properties["correlation_id"], message.properties["reply_to"]), ("c", "r"))


@case
def heartbeats(broker):
    with connect(broker, heartbeat=2) as connection:
        connection.connect()
        equal(connection.get_heartbeat_interval(), 2)
        begun = time.monotonic()
        while time.monotonic() - begun < 5:
            connection.heartbeat_check(rate=2)
            try:
                connection.drain_events(timeout=0.5)
            except socket.timeout:
                pass
        connection.channel().close()


@case
def pools_and_auto_declaring_producers(broker):
    connection = connect(broker)
    exchange = kombu.Exchange(unique("x"), "direct", durable=False, auto_delete=True)
    queue = kombu.Queue(unique(), exchange, routing_key="k", durable=False, auto_delete=True)
    with producers[connection].acquire(block=True) as producer:
        for number in range(100):
            producer.publish({"n": number}, exchange=exchange, routing_key="k", declare=[exchange, queue], retry=True)
    got = []
    with connections[connection].acquire(block=True) as pooled:
        with pooled.Consumer(queue, callbacks=[lambda body, message: (got.append(body["n"]), message.ack())]):
            drain_until(pooled, lambda: len(got) == 100, "a hundred")
    equal(got, list(range(100)))
    connections[connection].force_close_all()


@case
def ten_thousand_messages(broker):
    count = 10_000
    with connect(broker) as connection:
        channel = connection.channel()
        queue = kombu.Queue(unique(), exclusive=True)(channel)
        queue.declare()
        got = []

        def on_message(message):
            got.append(int(message.body))
            if len(got) % 100 == 0:
                message.ack(multiple=True)

        consumer = kombu.Consumer(channel, [queue], on_message=on_message)
        consumer.qos(prefetch_count=500)
        consumer.consume()
        producer = kombu.Producer(channel)
        for number in range(count):
            producer.publish(str(number), routing_key=queue.name, serializer="raw", content_type="text/plain")
        drain_until(connection, lambda: len(got) == count, "all")
        equal(got, list(range(count)))


if __name__ == "__main__":
    harness.main()
