"""pika, blocking: publishing, getting, consuming; contents, returns, confirms, transactions, consumers."""

import hashlib
import os
from datetime import datetime, timezone
from decimal import Decimal

import pika
import pika.exceptions

from harness import case, check, equal, eventually, matches, text_is, unique
from pika_support import Inbox, Session, channel_closes, connection_closes


@case
def get_from_an_empty_and_a_filled_queue(broker):
    with Session(broker) as session:
        name = session.queue()
        equal(session.channel.basic_get(name), (None, None, None))
        session.publish(name, b"1", b"2", b"3")
        eventually(lambda: session.ready(name) == 3, "three messages")
        for tag, left in ((1, 2), (2, 1), (3, 0)):
            method, _, body = session.channel.basic_get(name)
            equal(
                (body, method.delivery_tag, method.message_count, method.redelivered, method.exchange, method.routing_key),
                (b"%d" % tag, tag, left, False, "", name),
            )
        equal(session.channel.basic_get(name), (None, None, None))
        missing = unique()
        with channel_closes(session, 404, f"NOT_FOUND - no queue '{missing}' in vhost '/'") as channel:
            channel.basic_get(missing)


@case
def every_property_comes_back(broker):
    sent = {
        "content_type": "text/plain; charset=utf-8",
        "content_encoding": "identity",
        "headers": {"a": 1},
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c" * 255,
        "reply_to": "an-address",
        "expiration": "3600000",
        "message_id": "größe",
        "timestamp": 1_700_000_000,
        "type": "a type",
        "user_id": "guest",
        "app_id": "conformance",
        "cluster_id": "",
    }
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"all", **sent)
        session.publish(name, b"none")
        for body in (b"all", b"none"):
            _, properties, got = session.get(name, auto_ack=True)
            equal(got, body)
            for key, value in sent.items():
                equal(getattr(properties, key), value if body == b"all" else None, key)


@case
def header_tables_of_every_type_come_back(broker):
    headers = {
        "bool": True,
        "false": False,
        "int": -5,
        "int max": 2**31 - 1,
        "long": 2**40,
        "long min": -(2**63),
        "decimal": Decimal("3.14"),
        "negative decimal": Decimal("-0.5"),
        "string": "größe",
        "empty": "",
        "long string": "x" * 70_000,
        "octets": bytes(range(256)),
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        "table": {"one": 1, "deep": {"deeper": {"deepest": [1, [2, [3]]]}}, "nothing": {}},
        "array": [1, "two", True, None, Decimal("4.5"), {"five": 5}, [], b"\x00"],
        "void": None,
    }
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"x", headers=headers)
        equal(session.get(name, auto_ack=True)[1].headers, headers, "headers")


@case
def zero_length_bodies(broker):
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"", b"", headers={"n": 1})
        equal(session.get(name, auto_ack=True)[2], b"")
        inbox = Inbox(session, name)
        session.publish(name, b"")
        equal(inbox.wait(2), [b"", b""])


@case
def bodies_around_the_frame_limit(broker):
    sizes = [1, 2, 131072 - 9, 131072 - 8, 131072 - 7, 131072, 2 * (131072 - 8), 2 * (131072 - 8) + 1]
    with Session(broker) as session:
        name = session.queue()
        inbox = Inbox(session, name)
        for size in sizes:
            session.publish(name, bytes([size % 251]) * size)
        for size, body in zip(sizes, inbox.wait(len(sizes))):
            check(body == bytes([size % 251]) * size, f"{size} octets came as {len(body)}")


@case
def large_messages_both_ways(broker):
    bodies = [os.urandom(size) for size in (1_000_000, 8 * 1024 * 1024 + 13, 5)]
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, *bodies)
        _, _, first = session.get(name, auto_ack=True)
        inbox = Inbox(session, name)
        inbox.wait(2)
        for sent, got in zip(bodies, [first, *inbox.bodies]):
            equal(hashlib.sha256(got).hexdigest(), hashlib.sha256(sent).hexdigest(), f"{len(sent)} octets")


@case
def a_message_above_the_limit_is_406(broker):
    # RabbitMQ 3 has a limit of 128 MiB, 4 has 16 MiB.
    if broker.is_rabbitmq_3:
        return
    size = 16 * 1024 * 1024
    with Session(broker) as session:
        name = session.queue()
        session.publish(name, b"\x01" * size)
        check(session.get(name, auto_ack=True)[2] == b"\x01" * size, "the largest message changed")
        text = f"PRECONDITION_FAILED - message size {size + 1} is larger than configured max size {size}"
        with channel_closes(session, 406, text) as channel:
            channel.basic_publish("", name, b"\x01" * (size + 1))
        session.publish(name, b"alive")
        equal(session.get(name, auto_ack=True)[2], b"alive")


@case
def many_messages_in_order(broker):
    count = 20_000
    with Session(broker) as session:
        name = session.queue()
        inbox = Inbox(session, name)
        for number in range(count):
            session.publish(name, b"%d" % number)
        equal(inbox.wait(count), [b"%d" % number for number in range(count)])
        equal([method.delivery_tag for method in inbox.methods], list(range(1, count + 1)))


@case
def messages_take_turns_between_consumers(broker):
    with Session(broker) as session:
        name = session.queue()
        inboxes = [Inbox(session, name, channel=session.connection.channel()) for _ in range(3)]
        session.publish(name, *[b"%d" % number for number in range(30)])
        session.pump_until(lambda: sum(len(inbox.bodies) for inbox in inboxes) == 30, "30 deliveries")
        equal([len(inbox.bodies) for inbox in inboxes], [10, 10, 10], "deliveries by consumer")


@case
def consumer_tags(broker):
    with Session(broker) as session:
        name = session.queue()
        # pika makes up a tag of its own where none is given, so the empty one is asked for below pika.
        answers = []
        session.channel._impl._send_method(pika.spec.Basic.Consume(queue=name, consumer_tag="", no_ack=True))
        session.channel._impl.add_callback(lambda frame: answers.append(frame.method), [pika.spec.Basic.ConsumeOk])
        session.pump_until(lambda: answers, "consume-ok")
        matches(answers[0].consumer_tag, r"amq\.ctag-[A-Za-z0-9_-]{22}")
        inbox = Inbox(session, name, consumer_tag="of-my-own")
        equal(inbox.tag, "of-my-own")
        other = Inbox(session, name, channel=session.connection.channel(), consumer_tag="of-my-own")
        equal(other.tag, "of-my-own", "on another channel")
        text = "NOT_ALLOWED - attempt to reuse consumer tag 'of-my-own'"
        with connection_closes(session, 530, text) as channel:
            channel._impl._send_method(pika.spec.Basic.Consume(queue=name, consumer_tag="of-my-own"))


@case
def cancel_stops_deliveries(broker):
    with Session(broker) as session:
        name = session.queue()
        inbox = Inbox(session, name)
        session.publish(name, b"1")
        inbox.wait(1)
        session.channel.basic_cancel(inbox.tag)
        session.publish(name, b"2")
        eventually(lambda: session.ready(name) == 1, "the second stays")
        equal(session.state(name).consumer_count, 0)
        Inbox(session, name, consumer_tag=inbox.tag).wait(1)
        session.channel.basic_cancel("never there")


@case
def consuming_from_a_missing_queue_is_404(broker):
    with Session(broker) as session:
        missing = unique()
        with channel_closes(session, 404, f"NOT_FOUND - no queue '{missing}' in vhost '/'") as channel:
            channel.basic_consume(missing, lambda *_: None)


@case
def consumers_are_told_when_their_queue_is_deleted(broker):
    with Session(broker) as session, Session(broker) as other:
        name = session.queue(exclusive=False)
        cancelled = []
        session.channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        tags = {Inbox(session, name).tag, Inbox(session, name, auto_ack=False).tag}
        other.publish(name, b"x")
        other.channel.queue_delete(name)
        session.pump_until(lambda: len(cancelled) == 2, "two cancellations")
        equal(set(cancelled), tags)
        session.barrier()


@case
def an_exclusive_consumer_is_alone(broker):
    with Session(broker) as session, Session(broker) as other:
        name = session.queue(exclusive=False)
        text = f"ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use"
        alone = Inbox(session, name, exclusive=True)
        with channel_closes(other, 403, text) as channel:
            channel.basic_consume(name, lambda *_: None)
        with channel_closes(other, 403, text) as channel:
            channel.basic_consume(name, lambda *_: None, exclusive=True)
        session.channel.basic_cancel(alone.tag)
        shared = Inbox(other, name)
        with channel_closes(session, 403, text) as channel:
            channel.basic_consume(name, lambda *_: None, exclusive=True)
        other.publish(name, b"x")
        shared.wait(1)


@case
def consumer_priorities(broker):
    with Session(broker) as session:
        name = session.queue()
        session.channel.basic_qos(prefetch_count=3)
        low = Inbox(session, name, auto_ack=False, arguments={"x-priority": -1})
        none = Inbox(session, name, auto_ack=False)
        high = Inbox(session, name, auto_ack=False, arguments={"x-priority": 10})
        session.publish(name, *[b"%d" % number for number in range(8)])
        inboxes = (high, none, low)
        session.pump_until(lambda: sum(len(inbox.bodies) for inbox in inboxes) == 8, "8 deliveries")
        equal([inbox.bodies for inbox in inboxes], [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6", b"7"]])
        high.channel.basic_ack(high.methods[0].delivery_tag)
        session.barrier()
        session.publish(name, b"8")
        session.pump_until(lambda: len(high.bodies) == 4, "the one with credit and priority gets it")


@case
def an_invalid_consumer_priority_is_406(broker):
    with Session(broker) as session:
        name = session.queue()
        import re

        with channel_closes(session, 406, re.compile("PRECONDITION_FAILED - invalid arg 'x-priority' .*")) as channel:
            channel.basic_consume(name, lambda *_: None, arguments={"x-priority": "high"})


@case
def a_single_active_consumer_hands_over(broker):
    with Session(broker) as session:
        name = session.queue(arguments={"x-single-active-consumer": True})
        first, second = (Inbox(session, name, channel=session.connection.channel()) for _ in range(2))
        session.publish(name, *[b"%d" % number for number in range(10)])
        first.wait(10)
        equal(second.bodies, [])
        first.channel.basic_cancel(first.tag)
        session.publish(name, b"next")
        equal(second.wait(1), [b"next"])


@case
def mandatory_returns_312_before_the_confirm(broker):
    with Session(broker) as session:
        channel = session.confirming()
        missing = unique()
        try:
            channel.basic_publish("", missing, b"lost", pika.BasicProperties(message_id="m"), mandatory=True)
            raise AssertionError("no return, or after the confirm")
        except pika.exceptions.UnroutableError as error:
            message = error.messages[0]
        method = message.method
        equal((method.reply_code, method.reply_text), (312, "NO_ROUTE"))
        equal((method.exchange, method.routing_key, message.body), ("", missing, b"lost"))
        equal(message.properties.message_id, "m")
        channel.basic_publish("", missing, b"not mandatory")
        queue = session.queue()
        channel.basic_publish("", queue, b"routable", mandatory=True)
        equal(session.bodies(queue, 1), [b"routable"])


@case
def mandatory_returns_without_confirms(broker):
    with Session(broker) as session:
        returned = []
        session.channel.add_on_return_callback(lambda *all_of_it: returned.append(all_of_it[1:]))
        exchange = session.exchange("topic")
        large = os.urandom(300_000)
        for body in (b"", b"small", large):
            session.channel.basic_publish(exchange, "nowhere", body, mandatory=True)
        session.pump_until(lambda: len(returned) == 3, "three returns")
        for (method, _, body), sent in zip(returned, (b"", b"small", large)):
            equal((method.reply_code, method.reply_text, method.exchange), (312, "NO_ROUTE", exchange))
            check(body == sent, "the returned body differs")


@case
def confirms_one_by_one(broker):
    with Session(broker) as session:
        channel = session.confirming()
        queue = session.queue()
        for number in range(200):
            channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=1 + number % 2))
        equal(len(session.bodies(queue, 200)), 200)
        channel.confirm_delivery()


@case
def confirm_and_tx_exclude_each_other(broker):
    with Session(broker) as session:
        session.channel.tx_select()
        text = "PRECONDITION_FAILED - cannot switch from tx to confirm mode"
        with channel_closes(session, 406, text) as channel:
            channel.confirm_delivery()
        session.channel.confirm_delivery()
        text = "PRECONDITION_FAILED - cannot switch from confirm to tx mode"
        with channel_closes(session, 406, text) as channel:
            channel.tx_select()


@case
def tx_without_select_is_406(broker):
    with Session(broker) as session:
        text = "PRECONDITION_FAILED - channel is not transactional"
        with channel_closes(session, 406, text) as channel:
            channel.tx_commit()
        with channel_closes(session, 406, text) as channel:
            channel.tx_rollback()


@case
def tx_commits_publishes_and_acknowledgements(broker):
    with Session(broker) as session:
        source, target = session.queue(), session.queue()
        session.publish(source, b"1", b"2", b"3")
        channel = session.connection.channel()
        channel.tx_select()
        channel.tx_select()
        eventually(lambda: session.ready(source) == 3, "three")
        tags = [channel.basic_get(source)[0].delivery_tag for _ in range(3)]
        session.publish(target, b"a", b"b", channel=channel)
        channel.basic_ack(tags[0])
        session.barrier(channel)
        equal(session.ready(target), 0, "before the commit")
        channel.tx_commit()
        equal(session.bodies(target, 2), [b"a", b"b"])
        channel.basic_ack(tags[1])
        session.publish(target, b"c", channel=channel)
        channel.tx_rollback()
        channel.tx_commit()
        equal(session.ready(target), 0, "rolled back")
        channel.close()
        # What was acknowledged without a commit comes back.
        equal(session.bodies(source, 2), [b"2", b"3"])


@case
def tx_is_dropped_with_its_channel(broker):
    with Session(broker) as session:
        queue = session.queue()
        channel = session.connection.channel()
        channel.tx_select()
        session.publish(queue, b"never", channel=channel)
        channel.close()
        session.publish(queue, b"plain")
        equal(session.bodies(queue, 1), [b"plain"])


@case
def tx_returns_at_commit(broker):
    with Session(broker) as session:
        returned = []
        session.channel.add_on_return_callback(lambda *all_of_it: returned.append(all_of_it[3]))
        session.channel.tx_select()
        session.channel.basic_publish("", unique(), b"nowhere", mandatory=True)
        session.channel.tx_commit()
        session.pump_until(lambda: returned == [b"nowhere"], "the return")


@case
def user_id_must_be_the_users_own(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.publish(queue, b"x", user_id="guest")
        equal(session.get(queue, auto_ack=True)[1].user_id, "guest")
        text = "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'"
        with channel_closes(session, 406, text):
            session.publish(queue, b"x", user_id="somebody")


@case
def a_channel_error_loses_nothing_of_other_channels(broker):
    with Session(broker) as session:
        queue = session.queue()
        other = session.connection.channel()
        inbox = Inbox(session, queue, channel=other, auto_ack=False)
        session.publish(queue, b"1")
        inbox.wait(1)
        with channel_closes(session, 404, f"NOT_FOUND - no queue '{queue}?' in vhost '/'") as channel:
            channel.queue_declare(queue + "?", passive=True)
        session.publish(queue, b"2")
        inbox.wait(2)
        inbox.ack_last(multiple=True)
        session.barrier(other)
        equal(session.ready(queue), 0)


@case
def the_consume_generator(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.publish(queue, *[b"%d" % number for number in range(100)])
        got = []
        for method, _, body in session.channel.consume(queue, inactivity_timeout=20):
            got.append(body)
            session.channel.basic_ack(method.delivery_tag)
            if len(got) == 100:
                break
        equal(session.channel.cancel(), 0)
        equal(got, [b"%d" % number for number in range(100)])
        equal(session.ready(queue), 0)


@case
def a_publisher_and_a_consumer_on_two_connections(broker):
    with Session(broker) as one, Session(broker) as two:
        queue = one.queue(exclusive=False)
        inbox = Inbox(two, queue, auto_ack=False)
        channel = one.confirming()
        for number in range(100):
            channel.basic_publish("", queue, b"%d" % number)
        inbox.wait(100)
        inbox.ack_last(multiple=True)
        two.barrier()
        equal(one.ready(queue), 0)
        text_is("".join(body.decode() for body in inbox.bodies), "".join(str(number) for number in range(100)))
