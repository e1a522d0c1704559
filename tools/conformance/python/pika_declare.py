"""pika, blocking: exchanges, queues and bindings come and go."""

import re

import pika
import pika.exceptions

from harness import case, check, equal, eventually, unique
from pika_support import Inbox, Session, channel_closes, connection_closes


def no_queue(name):
    return f"NOT_FOUND - no queue '{name}' in vhost '/'"


def no_exchange(name):
    return f"NOT_FOUND - no exchange '{name}' in vhost '/'"


def locked(name):
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the "
        "original declaration."
    )


def inequivalent(argument, resource, received, current):
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {resource} in vhost '/': "
        f"received {received} but current is {current}"
    )


def exists(session, queue=None, exchange=None):
    channel = session.connection.channel()
    try:
        if queue is not None:
            channel.queue_declare(queue, passive=True)
        else:
            channel.exchange_declare(exchange, passive=True)
        channel.close()
    except pika.exceptions.ChannelClosedByBroker as error:
        equal(error.reply_code, 404, "reply code")
        return False
    return True


@case
def declare_answers_name_and_counts(broker):
    with Session(broker) as session:
        name = unique()
        method = session.channel.queue_declare(name, exclusive=True).method
        equal((method.queue, method.message_count, method.consumer_count), (name, 0, 0))
        session.publish(name, b"1", b"2", b"3")
        Inbox(session, session.queue())
        method = session.channel.queue_declare(name, exclusive=True).method
        equal((method.queue, method.message_count, method.consumer_count), (name, 3, 0))
        session.channel.basic_qos(prefetch_count=1)
        session.channel.basic_consume(name, lambda *_: None)
        session.channel.basic_consume(name, lambda *_: None)
        eventually(lambda: session.state(name).message_count == 1, "two of three are out")
        equal(session.state(name).consumer_count, 2)


@case
def server_names_a_queue_and_the_empty_name_means_it(broker):
    with Session(broker) as session:
        channel = session.channel
        name = channel.queue_declare("", exclusive=True).method.queue
        check(re.fullmatch(r"amq\.gen-[A-Za-z0-9_-]{22}", name), f"generated name {name!r}")
        other = channel.queue_declare("", exclusive=True).method.queue
        check(other != name, "the same name twice")
        channel.queue_bind("", "amq.direct", routing_key=other)
        channel.basic_publish("amq.direct", other, b"x")
        eventually(lambda: session.ready(other) == 1, "the message")
        equal(channel.basic_get("", auto_ack=True)[2], b"x")
        equal(channel.queue_purge("").method.message_count, 0)
        channel.queue_delete("")
        check(not exists(session, queue=other))
        check(exists(session, queue=name))


@case
def the_empty_name_without_a_declare_is_404(broker):
    with Session(broker) as session:
        text = "NOT_FOUND - no previously declared queue"
        with channel_closes(session, 404, text) as channel:
            channel.queue_bind("", "amq.direct", routing_key="x")
        with channel_closes(session, 404, text) as channel:
            channel.basic_get("")
        with channel_closes(session, 404, text) as channel:
            channel.queue_purge("")


@case
def a_server_named_queue_is_redeclared_by_its_name_or_refused(broker):
    # RabbitMQ allows that for exchanges alone; other brokers for queues too.
    with Session(broker) as session:
        name = session.queue("")
        try:
            equal(session.channel.queue_declare(name, exclusive=True).method.queue, name)
        except pika.exceptions.ChannelClosedByBroker as error:
            equal(error.reply_text, f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'")


@case
def passive_declare(broker):
    with Session(broker) as session:
        queue, exchange = session.queue(), session.exchange("topic")
        session.channel.queue_declare(queue, passive=True)
        session.channel.exchange_declare(exchange, "fanout", passive=True)
        missing = unique()
        with channel_closes(session, 404, no_queue(missing)) as channel:
            channel.queue_declare(missing, passive=True)
        with channel_closes(session, 404, no_exchange(missing)) as channel:
            channel.exchange_declare(missing, passive=True)
        with channel_closes(session, 404, no_queue("amq.gen-missing")) as channel:
            channel.queue_declare("amq.gen-missing", passive=True)


@case
def redeclare_alike_succeeds_otherwise_is_406(broker):
    with Session(broker) as session:
        name = session.queue(exclusive=False)
        session.channel.queue_declare(name)
        resource = f"queue '{name}'"
        with channel_closes(session, 406, inequivalent("durable", resource, "'true'", "'false'")) as channel:
            channel.queue_declare(name, durable=True)
        with channel_closes(session, 406, inequivalent("auto_delete", resource, "'true'", "'false'")) as channel:
            channel.queue_declare(name, auto_delete=True)
        text = (inequivalent("exclusive", resource, "'true'", "'false'"), locked(name))
        channel = session.channel
        try:
            channel.queue_declare(name, exclusive=True)
            raise AssertionError("declared exclusive what is not")
        except pika.exceptions.ChannelClosedByBroker as error:
            check((error.reply_code, error.reply_text) in ((406, text[0]), (405, text[1])), repr(error))
        session.channel = session.connection.channel()


@case
def inequivalent_arguments_are_406_with_value_and_type(broker):
    with Session(broker) as session:
        plain = session.queue(exclusive=False)
        text = inequivalent("x-message-ttl", f"queue '{plain}'", "the value '10' of type 'signedint'", "none")
        with channel_closes(session, 406, text) as channel:
            channel.queue_declare(plain, arguments={"x-message-ttl": 10})
        limited = session.queue(exclusive=False, arguments={"x-max-length": 5, "x-dead-letter-exchange": "one"})
        text = inequivalent(
            "x-max-length", f"queue '{limited}'",  "'6'", "'5'"
        )
        with channel_closes(session, 406, text) as channel:
            channel.queue_declare(limited, arguments={"x-max-length": 6, "x-dead-letter-exchange": "one"})
        text = inequivalent(
            "x-dead-letter-exchange",
            f"queue '{limited}'",
            "'two'",
            "'one'",
        )
        with channel_closes(session, 406, text) as channel:
            channel.queue_declare(limited, arguments={"x-max-length": 5, "x-dead-letter-exchange": "two"})
        text = inequivalent("x-max-length", f"queue '{limited}'", "none", "the value '5' of type 'signedint'")
        with channel_closes(session, 406, text) as channel:
            channel.queue_declare(limited, arguments={"x-dead-letter-exchange": "one"})


@case
def integer_arguments_compare_across_widths(broker):
    with Session(broker) as session:
        name = session.queue(arguments={"x-message-ttl": 60_000})
        from pika.compat import long

        session.channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": long(60_000)})
        text = inequivalent(
            "x-message-ttl", f"queue '{name}'",  "'60001'", "'60000'"
        )
        with channel_closes(session, 406, text) as channel:
            channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": long(60_001)})


@case
def only_known_arguments_are_compared(broker):
    with Session(broker) as session:
        name = session.queue(arguments={"x-of-our-own": 1, "x-queue-type": "classic"})
        session.channel.queue_declare(name, exclusive=True, arguments={"x-of-our-own": "two"})
        session.channel.queue_declare(name, exclusive=True)


@case
def invalid_arguments_are_406(broker):
    with Session(broker) as session:
        for arguments, explanation in (
            ({"x-message-ttl": -1}, r"invalid arg 'x-message-ttl' for queue '{q}' in vhost '/': .*"),
            ({"x-message-ttl": "soon"}, r"invalid arg 'x-message-ttl' for queue '{q}' in vhost '/': .*"),
            ({"x-expires": 0}, r"invalid arg 'x-expires' for queue '{q}' in vhost '/': .*"),
            ({"x-max-length": -1}, r"invalid arg 'x-max-length' for queue '{q}' in vhost '/': .*"),
            ({"x-max-length": "many"}, r"invalid arg 'x-max-length' for queue '{q}' in vhost '/': .*"),
            ({"x-max-length-bytes": -5}, r"invalid arg 'x-max-length-bytes' for queue '{q}' in vhost '/': .*"),
            ({"x-max-priority": 256}, r"invalid arg 'x-max-priority' for queue '{q}' in vhost '/': .*"),
            ({"x-max-priority": -1}, r"invalid arg 'x-max-priority' for queue '{q}' in vhost '/': .*"),
            ({"x-overflow": "burst"}, r"invalid arg 'x-overflow' for queue '{q}' in vhost '/': .*"),
            ({"x-dead-letter-exchange": 5}, r"invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue '{q}' in vhost '/'"),
            ({"x-dead-letter-routing-key": 5}, r"invalid arg 'x-dead-letter-routing-key' for queue '{q}' in vhost '/': .*"),
            (
                {"x-dead-letter-routing-key": "key"},
                r"invalid arg 'x-dead-letter-routing-key' for queue '{q}' in vhost '/': .*",
            ),
            (
                {"x-single-active-consumer": "yes"},
                r"invalid arg 'x-single-active-consumer' for queue '{q}' in vhost '/': .*",
            ),
        ):
            name = unique()
            text = re.compile("PRECONDITION_FAILED - " + explanation.replace("{q}", name))
            with channel_closes(session, 406, text) as channel:
                channel.queue_declare(name, exclusive=True, arguments=arguments)
            check(not exists(session, queue=name), f"{arguments} made a queue")


@case
def reserved_names_are_403_on_creation(broker):
    with Session(broker) as session:
        name = "amq." + unique()
        with channel_closes(
            session, 403, f"ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"
        ) as channel:
            channel.queue_declare(name)
        with channel_closes(
            session, 403, f"ACCESS_REFUSED - exchange name '{name}' contains reserved prefix 'amq.*'"
        ) as channel:
            channel.exchange_declare(name, "direct")


@case
def an_exclusive_queue_is_locked_for_others(broker):
    with Session(broker) as owner, Session(broker) as other:
        name = owner.queue()
        for attempt in (
            lambda channel: channel.queue_declare(name, passive=True),
            lambda channel: channel.queue_declare(name, exclusive=True),
            lambda channel: channel.queue_declare(name),
            lambda channel: channel.queue_bind(name, "amq.fanout"),
            lambda channel: channel.queue_purge(name),
            lambda channel: channel.queue_delete(name),
            lambda channel: channel.basic_get(name),
            lambda channel: channel.basic_consume(name, lambda *_: None),
        ):
            with channel_closes(other, 405, locked(name)) as channel:
                attempt(channel)
        other.publish(name, b"publishing is free")
        equal(owner.bodies(name, 1), [b"publishing is free"])
        second = owner.connection.channel()
        second.queue_declare(name, exclusive=True)


@case
def an_auto_delete_queue_goes_with_its_last_consumer(broker):
    with Session(broker) as session:
        name = session.queue(exclusive=False, auto_delete=True)
        check(exists(session, queue=name), "gone before it had a consumer")
        one = Inbox(session, name)
        two = Inbox(session, name)
        session.channel.basic_cancel(one.tag)
        check(exists(session, queue=name), "gone while it has a consumer")
        session.channel.basic_cancel(two.tag)
        eventually(lambda: not exists(session, queue=name), "the queue goes")


@case
def an_auto_delete_queue_goes_when_its_consumers_channel_closes(broker):
    with Session(broker) as session:
        name = session.queue(exclusive=False, auto_delete=True)
        channel = session.connection.channel()
        Inbox(session, name, channel=channel)
        channel.close()
        eventually(lambda: not exists(session, queue=name), "the queue goes")


@case
def purge_counts_and_spares_what_is_unacknowledged(broker):
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"held", b"1", b"2", b"3")
        method, _, _ = session.get(name)
        equal(session.channel.queue_purge(name).method.message_count, 3)
        equal(session.ready(name), 0)
        session.channel.basic_nack(method.delivery_tag)
        equal(session.bodies(name, 1), [b"held"])
        missing = unique()
        with channel_closes(session, 404, no_queue(missing)) as channel:
            channel.queue_purge(missing)


@case
def delete_if_unused_and_if_empty(broker):
    with Session(broker) as session:
        name = session.queue(exclusive=False)
        session.publish(name, b"1", b"2")
        with channel_closes(session, 406, f"PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty") as channel:
            channel.queue_delete(name, if_empty=True)
        consumer = session.connection.channel()
        consumer.basic_consume(name, lambda *_: None)
        with channel_closes(session, 406, f"PRECONDITION_FAILED - queue '{name}' in vhost '/' in use") as channel:
            channel.queue_delete(name, if_unused=True)
        consumer.close()
        eventually(lambda: session.state(name).consumer_count == 0, "the consumer is gone")
        equal(session.channel.queue_delete(name, if_unused=True).method.message_count, 2)
        check(not exists(session, queue=name))


@case
def deleting_what_is_not_there_succeeds(broker):
    with Session(broker) as session:
        equal(session.channel.queue_delete(unique()).method.message_count, 0)
        session.channel.exchange_delete(unique())
        session.barrier()


@case
def a_deleted_queue_starts_anew(broker):
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"old")
        session.channel.queue_bind(name, "amq.direct", routing_key=name)
        session.channel.queue_delete(name)
        session.queue(name, arguments={"x-max-length": 10})
        session.channel.basic_publish("amq.direct", name, b"unbound now")
        session.publish(name, b"new")
        equal(session.bodies(name, 1), [b"new"])


@case
def long_and_unicode_names(broker):
    with Session(broker) as session:
        for name in ("q" * (255 - 20) + unique()[:20], "größe-日本語-" + unique(), "with space ' \" " + unique()):
            session.queue(name)
            session.publish(name, b"x")
            equal(session.bodies(name, 1), [b"x"])
            missing = name[:-1] + "?"
            try:
                session.channel.queue_declare(missing, passive=True)
                raise AssertionError("a missing queue is there")
            except pika.exceptions.ChannelClosedByBroker as error:
                equal(error.reply_code, 404, "reply code")
                check(no_queue(missing).startswith(error.reply_text[:200]), error.reply_text)
                check(len(error.reply_text.encode()) <= 255, "a text of more than 255 octets")
            session.channel = session.connection.channel()


@case
def predeclared_exchanges(broker):
    with Session(broker) as session:
        for name in ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match", "amq.rabbitmq.trace"):
            session.channel.exchange_declare(name, passive=True)
        session.channel.exchange_declare("amq.topic", "topic", durable=True)
        text = inequivalent("durable", "exchange 'amq.direct'", "'false'", "'true'")
        with channel_closes(session, 406, text) as channel:
            channel.exchange_declare("amq.direct", "direct")


@case
def inequivalent_exchange_is_406(broker):
    with Session(broker) as session:
        name = session.exchange("direct")
        resource = f"exchange '{name}'"
        for wrong, text in (
            ({"exchange_type": "fanout"}, inequivalent("type", resource, "'fanout'", "'direct'")),
            ({"durable": True}, inequivalent("durable", resource, "'true'", "'false'")),
            ({"auto_delete": True}, inequivalent("auto_delete", resource, "'true'", "'false'")),
            ({"internal": True}, inequivalent("internal", resource, "'true'", "'false'")),
            (
                {"arguments": {"alternate-exchange": "amq.fanout"}},
                inequivalent("alternate-exchange", resource, "the value 'amq.fanout' of type 'longstr'", "none"),
            ),
        ):
            with channel_closes(session, 406, text) as channel:
                channel.exchange_declare(**{"exchange": name, "exchange_type": "direct", **wrong})
        session.channel.exchange_declare(name, "direct", arguments={"x-unknown": 1})


@case
def an_unknown_exchange_type_is_refused(broker):
    with Session(broker) as session:
        if broker.is_rabbitmq_3:
            # A connection error until RabbitMQ 4.
            with connection_closes(session, 503, "COMMAND_INVALID - unknown exchange type 'x-no-such'") as channel:
                channel.exchange_declare(unique("x"), "x-no-such")
        else:
            with channel_closes(session, 406, "PRECONDITION_FAILED - unknown exchange type 'x-no-such'") as channel:
                channel.exchange_declare(unique("x"), "x-no-such")


@case
def the_default_exchange_cannot_be_changed(broker):
    with Session(broker) as session:
        queue, exchange = session.queue(), session.exchange("fanout")
        text = "ACCESS_REFUSED - operation not permitted on the default exchange"
        for attempt in (
            lambda channel: channel.exchange_declare("", "direct", durable=True),
            lambda channel: channel.exchange_delete(""),
            lambda channel: channel.queue_bind(queue, "", routing_key="other"),
            lambda channel: channel.queue_unbind(queue, "", routing_key=queue),
            lambda channel: channel.exchange_bind(exchange, "", routing_key="other"),
            lambda channel: channel.exchange_bind("", exchange, routing_key="other"),
        ):
            with channel_closes(session, 403, text) as channel:
                attempt(channel)


@case
def system_exchanges_cannot_be_deleted(broker):
    with Session(broker) as session:
        for name in ("amq.direct", "amq.topic"):
            text = f"ACCESS_REFUSED - deletion of system exchange '{name}' in vhost '/' not allowed"
            with channel_closes(session, 403, text) as channel:
                channel.exchange_delete(name)


@case
def an_exchange_in_use_stays_with_if_unused(broker):
    with Session(broker) as session:
        name, queue = session.exchange("direct"), session.queue()
        session.channel.queue_bind(queue, name, routing_key="k")
        text = f"PRECONDITION_FAILED - exchange '{name}' in vhost '/' in use"
        with channel_closes(session, 406, text) as channel:
            channel.exchange_delete(name, if_unused=True)
        session.channel.queue_unbind(queue, name, routing_key="k")
        session.channel.exchange_delete(name, if_unused=True)
        check(not exists(session, exchange=name))


@case
def an_auto_delete_exchange_goes_with_its_last_binding(broker):
    with Session(broker) as session:
        name = session.exchange("direct", auto_delete=True)
        one, two = session.queue(), session.queue()
        check(exists(session, exchange=name), "gone before it had a binding")
        session.channel.queue_bind(one, name, routing_key="k")
        session.channel.queue_bind(two, name, routing_key="k")
        session.channel.queue_unbind(one, name, routing_key="k")
        check(exists(session, exchange=name), "gone while it has a binding")
        session.channel.queue_delete(two)
        eventually(lambda: not exists(session, exchange=name), "the exchange goes")


@case
def binding_to_what_is_not_there_is_404(broker):
    with Session(broker) as session:
        queue, exchange, missing = session.queue(), session.exchange("direct"), unique()
        with channel_closes(session, 404, no_exchange(missing)) as channel:
            channel.queue_bind(queue, missing, routing_key="k")
        with channel_closes(session, 404, no_queue(missing)) as channel:
            channel.queue_bind(missing, exchange, routing_key="k")
        with channel_closes(session, 404, no_exchange(missing)) as channel:
            channel.exchange_bind(exchange, missing, routing_key="k")
        with channel_closes(session, 404, no_exchange(missing)) as channel:
            channel.exchange_bind(missing, exchange, routing_key="k")


@case
def unbinding_what_is_not_bound_succeeds(broker):
    with Session(broker) as session:
        queue, exchange = session.queue(), session.exchange("direct")
        session.channel.queue_unbind(queue, exchange, routing_key="never bound")
        session.channel.exchange_unbind(exchange, "amq.fanout", routing_key="never bound")
        session.barrier()


@case
def durable_means_nothing_for_an_exclusive_queue(broker):
    with Session(broker) as session:
        name = session.queue(durable=True)
        session.channel.queue_declare(name, exclusive=True, durable=False)
        session.channel.queue_declare(name, exclusive=True, durable=True)


@case
def a_durable_queue_and_exchange(broker):
    with Session(broker) as session:
        queue = session.queue(exclusive=False, durable=True)
        exchange = session.exchange("direct", durable=True)
        session.channel.queue_bind(queue, exchange, routing_key="k")
        session.channel.basic_publish(exchange, "k", b"lasting", pika.BasicProperties(delivery_mode=2))
        equal(session.bodies(queue, 1), [b"lasting"])


@case
def declare_with_many_arguments_at_once(broker):
    arguments = {
        "x-message-ttl": 3_600_000,
        "x-expires": 3_600_000,
        "x-max-length": 1000,
        "x-max-length-bytes": 1_000_000,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "amq.fanout",
        "x-dead-letter-routing-key": "dead",
        "x-max-priority": 9,
        "x-single-active-consumer": True,
        "x-queue-mode": "lazy",
    }
    with Session(broker) as session:
        name = session.queue(arguments=arguments)
        session.channel.queue_declare(name, exclusive=True, arguments=arguments)
        session.publish(name, b"x", priority=3)
        equal(session.bodies(name, 1), [b"x"])
