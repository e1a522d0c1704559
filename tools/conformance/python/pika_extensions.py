"""pika, blocking: RabbitMQ's extensions to queues and messages: time-outs, bounds, dead letters, priorities, replies."""

import re
import time
from datetime import datetime, timezone

import pika
import pika.exceptions

from harness import case, check, equal, eventually, one_of, unique
from pika_declare import exists
from pika_support import Inbox, Session, channel_closes

REPLY_TO = "amq.rabbitmq.reply-to"


def mortuary(session, kind="fanout"):
    """An exchange with one queue bound to it that takes all; returns both names."""
    exchange = session.exchange(kind)
    queue = session.queue()
    session.channel.queue_bind(queue, exchange, routing_key="#")
    return exchange, queue


# Messages and queues that expire.


@case
def a_messages_own_expiration(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.publish(queue, b"short", expiration="50")
        session.publish(queue, b"long", expiration="60000")
        eventually(lambda: session.ready(queue) == 1, "one expires")
        method, properties, body = session.get(queue, auto_ack=True)
        equal((body, properties.expiration), (b"long", "60000"))


@case
def the_queues_message_ttl(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-message-ttl": 60})
        session.publish(queue, b"1", b"2")
        session.publish(queue, b"3", expiration="60000")
        eventually(lambda: session.ready(queue) == 0, "all expire, the shorter time counts")


@case
def an_unacknowledged_message_does_not_expire_until_requeued(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-message-ttl": 100})
        inbox = Inbox(session, queue, auto_ack=False)
        begun = time.monotonic()
        session.publish(queue, b"held")
        inbox.wait(1)
        session.pump_until(lambda: time.monotonic() - begun > 0.2, "its time is over")
        session.channel.basic_ack(inbox.methods[0].delivery_tag)
        session.barrier()


@case
def a_requeued_message_keeps_its_expiry(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-message-ttl": 150})
        session.publish(queue, b"held")
        method, _, _ = session.get(queue)
        session.channel.basic_reject(method.delivery_tag, requeue=True)
        eventually(lambda: session.ready(queue) == 0, "it expires")


@case
def a_ttl_of_zero_reaches_waiting_consumers_only(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.publish(queue, b"nobody waits", expiration="0")
        eventually(lambda: session.ready(queue) == 0, "it expires at once")
        inbox = Inbox(session, queue)
        session.publish(queue, b"somebody waits", expiration="0")
        equal(inbox.wait(1), [b"somebody waits"])


@case
def an_invalid_expiration_is_406(broker):
    with Session(broker) as session:
        queue = session.queue()
        for expiration in ("soon", "-1", "1.5", "", "10ms"):
            text = re.compile(f"PRECONDITION_FAILED - invalid expiration '{re.escape(expiration)}': .*")
            with channel_closes(session, 406, text):
                session.publish(queue, b"x", expiration=expiration)
        equal(session.ready(queue), 0)


@case
def an_unused_queue_expires(broker):
    with Session(broker) as session:
        queue = session.queue(exclusive=False, arguments={"x-expires": 150})
        begun = time.monotonic()
        eventually(lambda: not _is_bound_somewhere(session, queue), "the queue expires")
        check(time.monotonic() - begun >= 0.1, "too early")


def _is_bound_somewhere(session, queue):
    """Whether the queue is there, asked without using it: a mandatory publish comes back where it is not."""
    channel = session.confirming()
    try:
        channel.basic_publish("", queue, b"x", mandatory=True)
    except pika.exceptions.UnroutableError:
        return False
    finally:
        channel.close()
    return True


@case
def use_keeps_a_queue_from_expiring(broker):
    with Session(broker) as session:
        kept_by_consumer = session.queue(exclusive=False, arguments={"x-expires": 400})
        kept_by_get = session.queue(exclusive=False, arguments={"x-expires": 400})
        inbox = Inbox(session, kept_by_consumer)
        begun = time.monotonic()
        while time.monotonic() - begun < 1.0:
            session.channel.basic_get(kept_by_get)
            session.connection.process_data_events(time_limit=0.05)
        check(exists(session, queue=kept_by_consumer), "gone in spite of its consumer")
        check(exists(session, queue=kept_by_get), "gone in spite of basic.get")
        session.channel.basic_cancel(inbox.tag)
        eventually(lambda: not _is_bound_somewhere(session, kept_by_consumer), "without a consumer it expires")


@case
def an_expired_queue_cancels_nobody_and_unbinds(broker):
    with Session(broker) as session:
        exchange = session.exchange("direct", auto_delete=True)
        queue = session.queue(exclusive=False, arguments={"x-expires": 100})
        session.channel.queue_bind(queue, exchange, routing_key="k")
        eventually(lambda: not exists(session, exchange=exchange), "its binding goes, and the exchange with it")


# Bounded queues.


@case
def max_length_drops_the_oldest(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-length": 3})
        channel = session.confirming()
        session.publish(queue, *[b"%d" % number for number in range(10)], channel=channel)
        equal(session.bodies(queue, 3), [b"7", b"8", b"9"])


@case
def max_length_zero_keeps_nothing_but_delivers(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-length": 0})
        session.publish(queue, b"lost", channel=session.confirming())
        equal(session.ready(queue), 0)


@case
def max_length_counts_ready_messages_only(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-length": 2})
        session.publish(queue, b"1", b"2", channel=session.confirming())
        for _ in range(2):
            session.get(queue)
        session.publish(queue, b"3", b"4", b"5", channel=session.confirming())
        equal(session.bodies(queue, 2), [b"4", b"5"])


@case
def max_length_bytes_counts_bodies(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-length-bytes": 250})
        channel = session.confirming()
        session.publish(queue, *[bytes([number]) * 100 for number in range(5)], channel=channel)
        equal([body[0] for body in session.bodies(queue, 2)], [3, 4])


@case
def reject_publish_nacks(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
        channel = session.confirming()
        rejected = []
        for number in range(6):
            try:
                session.publish(queue, b"%d" % number, channel=channel)
            except pika.exceptions.NackError:
                rejected.append(number)
        equal(rejected, [2, 3, 4, 5], "nacked")
        equal(session.bodies(queue, 2), [b"0", b"1"])
        session.publish(queue, b"room again", channel=channel)
        equal(session.bodies(queue, 1), [b"room again"])


@case
def reject_publish_dlx_nacks_and_dead_letters(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session)
        queue = session.queue(
            arguments={"x-max-length": 1, "x-overflow": "reject-publish-dlx", "x-dead-letter-exchange": exchange}
        )
        channel = session.confirming()
        session.publish(queue, b"in", channel=channel)
        try:
            session.publish(queue, b"out", channel=channel)
            raise AssertionError("not nacked")
        except pika.exceptions.NackError:
            pass
        _, properties, body = session.get(dead, auto_ack=True)
        equal((body, properties.headers["x-death"][0]["reason"]), (b"out", "maxlen"))


@case
def one_full_queue_of_many_nacks(broker):
    with Session(broker) as session:
        exchange = session.exchange("fanout")
        full = session.queue(arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        free = session.queue()
        for queue in (full, free):
            session.channel.queue_bind(queue, exchange)
        channel = session.confirming()
        channel.basic_publish(exchange, "", b"1")
        try:
            channel.basic_publish(exchange, "", b"2")
            raise AssertionError("not nacked")
        except pika.exceptions.NackError:
            pass
        equal(session.bodies(free, 2), [b"1", b"2"])


# Dead letters.


def check_death(death, **expected):
    for key, value in expected.items():
        equal(death.get(key.replace("_", "-")), value, f"x-death {key}")
    check(isinstance(death["time"], datetime), "x-death time is no timestamp")
    check(abs((datetime.now(timezone.utc) - death["time"]).total_seconds()) < 60, "x-death time is not now")


def check_first_and_last(broker, headers, reason, queue, exchange):
    whichs = ("first",) if broker.is_rabbitmq_3 else ("first", "last")
    for which in whichs:
        equal(headers[f"x-{which}-death-reason"], reason)
        equal(headers[f"x-{which}-death-queue"], queue)
        equal(headers[f"x-{which}-death-exchange"], exchange)


@case
def a_rejected_message_is_dead_lettered(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session, "topic")
        source = session.exchange("direct")
        queue = session.queue(arguments={"x-dead-letter-exchange": exchange})
        session.channel.queue_bind(queue, source, routing_key="k")
        sent = pika.BasicProperties(headers={"mine": 1}, message_id="m", delivery_mode=2, priority=3)
        for settle in ("nack", "reject"):
            session.channel.basic_publish(source, "k", b"body", sent)
            method, _, _ = session.get(queue)
            getattr(session.channel, f"basic_{settle}")(method.delivery_tag, requeue=False)
            method, properties, body = session.get(dead, auto_ack=True)
            equal((body, method.routing_key, method.exchange, method.redelivered), (b"body", "k", exchange, False))
            equal((properties.message_id, properties.delivery_mode, properties.priority), ("m", 2, 3))
            equal(properties.headers["mine"], 1)
            deaths = properties.headers["x-death"]
            equal(len(deaths), 1)
            check_death(
                deaths[0], count=1, reason="rejected", queue=queue, exchange=source, routing_keys=["k"]
            )
            check("original-expiration" not in deaths[0])
            check_first_and_last(broker, properties.headers, "rejected", queue, source)


@case
def a_requeued_message_is_not_dead_lettered(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session)
        queue = session.queue(arguments={"x-dead-letter-exchange": exchange})
        session.publish(queue, b"x")
        session.channel.basic_reject(session.get(queue)[0].delivery_tag, requeue=True)
        equal(session.bodies(queue, 1), [b"x"])
        session.publish(queue, b"purged")
        eventually(lambda: session.ready(queue) == 1, "the message")
        session.channel.queue_purge(queue)
        session.publish(queue, b"deleted")
        session.channel.queue_delete(queue)
        equal(session.ready(dead), 0)


@case
def an_expired_message_is_dead_lettered(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session)
        queue = session.queue(arguments={"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "new key"})
        session.publish(queue, b"x", expiration="30")
        method, properties, body = session.get(dead, auto_ack=True)
        equal((body, method.routing_key, properties.expiration), (b"x", "new key", None))
        death = properties.headers["x-death"][0]
        check_death(death, count=1, reason="expired", queue=queue, exchange="", routing_keys=[queue])
        equal(death["original-expiration"], "30")
        check_first_and_last(broker, properties.headers, "expired", queue, "")


@case
def messages_expire_in_order_into_the_dead_letter_exchange(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session)
        queue = session.queue(arguments={"x-dead-letter-exchange": exchange, "x-message-ttl": 40})
        session.publish(queue, *[b"%d" % number for number in range(50)])
        equal(session.bodies(dead, 50), [b"%d" % number for number in range(50)])


@case
def a_dropped_message_is_dead_lettered(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session)
        queue = session.queue(arguments={"x-dead-letter-exchange": exchange, "x-max-length": 1})
        session.publish(queue, b"1", b"2")
        _, properties, body = session.get(dead, auto_ack=True)
        equal(body, b"1")
        check_death(properties.headers["x-death"][0], count=1, reason="maxlen", queue=queue, exchange="")
        equal(session.bodies(queue, 1), [b"2"])


@case
def deaths_are_counted_newest_first(broker):
    with Session(broker) as session:
        back = session.exchange("direct")
        retry = session.queue(arguments={"x-dead-letter-exchange": back, "x-dead-letter-routing-key": "work"})
        work = session.queue(arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": retry})
        session.channel.queue_bind(work, back, routing_key="work")
        session.publish(work, b"job")
        for attempt in range(1, 4):
            method, properties, body = session.get(work)
            equal(body, b"job")
            if attempt > 1:
                deaths = properties.headers["x-death"]
                equal([(death["queue"], death["reason"], death["count"]) for death in deaths][:1],
                      [(retry, "rejected", attempt - 1)])
                equal(sorted((death["queue"], death["count"]) for death in deaths),
                      sorted([(retry, attempt - 1), (work, attempt - 1)]))
                check_first_and_last_of_cycle(broker, properties.headers, work, retry)
            session.channel.basic_reject(method.delivery_tag, requeue=False)
            method, properties, _ = session.get(retry)
            equal(properties.headers["x-death"][0]["queue"], work)
            equal(properties.headers["x-death"][0]["count"], attempt)
            session.channel.basic_reject(method.delivery_tag, requeue=False)
        session.get(work)


def check_first_and_last_of_cycle(broker, headers, first, last):
    equal(headers["x-first-death-queue"], first)
    if not broker.is_rabbitmq_3:
        equal(headers["x-last-death-queue"], last)


@case
def a_cycle_without_a_rejection_drops_the_message(broker):
    with Session(broker) as session:
        name = unique()
        queue = session.queue(name, arguments={
            "x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
        session.publish(queue, b"round and round")
        eventually(lambda: session.ready(queue) == 0, "the message goes")
        inbox = Inbox(session, queue)
        begun = time.monotonic()
        session.pump_until(lambda: time.monotonic() - begun > 0.15, "some time-outs pass")
        equal(inbox.bodies, [])


@case
def a_retry_with_a_delay(broker):
    with Session(broker) as session:
        wait, work = unique(), unique()
        session.queue(wait, arguments={
            "x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": work})
        session.queue(work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
        inbox = Inbox(session, work, auto_ack=False)
        session.publish(work, b"job")
        for attempt in range(1, 4):
            inbox.wait(attempt)
            deaths = (inbox.properties[-1].headers or {}).get("x-death", [])
            rejections = sum(death["count"] for death in deaths if death["reason"] == "rejected")
            equal(rejections, attempt - 1, "rejections")
            if attempt < 3:
                session.channel.basic_nack(inbox.methods[-1].delivery_tag, requeue=False)
        inbox.ack_last()
        session.barrier()


@case
def a_missing_dead_letter_exchange_drops(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-dead-letter-exchange": unique("x")})
        session.publish(queue, b"x")
        session.channel.basic_reject(session.get(queue)[0].delivery_tag, requeue=False)
        session.barrier()
        equal(session.ready(queue), 0)


@case
def cc_is_kept_in_dead_letters_unless_the_key_is_replaced(broker):
    with Session(broker) as session:
        exchange, dead = mortuary(session, "topic")
        keeping = session.queue(arguments={"x-dead-letter-exchange": exchange})
        session.publish(keeping, b"x", headers={"CC": ["other"]})
        session.channel.basic_reject(session.get(keeping)[0].delivery_tag, requeue=False)
        method, properties, _ = session.get(dead, auto_ack=True)
        equal(properties.headers.get("CC"), ["other"])
        equal(sorted(properties.headers["x-death"][0]["routing-keys"]), sorted([keeping, "other"]))
        equal(session.bodies(dead), [])
        replacing = session.queue(arguments={"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "new"})
        session.publish(replacing, b"y", headers={"CC": ["other"]})
        session.channel.basic_reject(session.get(replacing)[0].delivery_tag, requeue=False)
        method, properties, _ = session.get(dead, auto_ack=True)
        equal(method.routing_key, "new")
        check("CC" not in properties.headers, "CC would route by the old keys")


# Priorities.


@case
def higher_priorities_come_first(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-priority": 5})
        channel = session.confirming()
        for number, priority in enumerate((1, 3, None, 5, 3, 0, 9, 1)):
            session.publish(queue, b"%d" % number, channel=channel, priority=priority)
        # 9 counts as 5; no priority is the lowest.
        equal([int(body) for body in session.bodies(queue, 8)], [3, 6, 1, 4, 0, 7, 2, 5])


@case
def a_requeued_message_keeps_its_priority(broker):
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-priority": 10})
        channel = session.confirming()
        session.publish(queue, b"low", channel=channel, priority=1)
        session.publish(queue, b"high", channel=channel, priority=9)
        method, properties, body = session.get(queue)
        equal((body, properties.priority), (b"high", 9))
        session.publish(queue, b"middle", channel=channel, priority=5)
        session.channel.basic_reject(method.delivery_tag, requeue=True)
        eventually(lambda: session.ready(queue) == 3, "three")
        equal(session.bodies(queue), [b"high", b"middle", b"low"])


@case
def a_full_priority_queue_drops_from_its_head(broker):
    # The head is what would be delivered next: RabbitMQ's documentation warns of it.
    with Session(broker) as session:
        queue = session.queue(arguments={"x-max-priority": 5, "x-max-length": 2})
        channel = session.confirming()
        for body, priority in ((b"low", 1), (b"high", 5), (b"middle", 3)):
            session.publish(queue, body, channel=channel, priority=priority)
        equal(session.bodies(queue, 2), [b"middle", b"low"])


@case
def without_max_priority_the_order_stays(broker):
    with Session(broker) as session:
        queue = session.queue()
        channel = session.confirming()
        for number, priority in enumerate((1, 9, 5)):
            session.publish(queue, b"%d" % number, channel=channel, priority=priority)
        equal(session.bodies(queue, 3), [b"0", b"1", b"2"])


# Direct reply-to.


@case
def direct_reply_to(broker):
    with Session(broker) as client, Session(broker) as server:
        requests = server.queue(exclusive=False)
        replies = Inbox(client, REPLY_TO)
        for number in range(20):
            client.publish(requests, b"%d" % number, reply_to=REPLY_TO, correlation_id=str(number))
            _, properties, body = server.get(requests, auto_ack=True)
            check(properties.reply_to.startswith(REPLY_TO + "."), properties.reply_to)
            server.channel.basic_publish(
                "", properties.reply_to, body * 2, pika.BasicProperties(correlation_id=properties.correlation_id)
            )
            replies.wait(number + 1)
            equal(replies.bodies[-1], b"%d" % number * 2)
            equal(replies.properties[-1].correlation_id, str(number))
            equal(replies.methods[-1].exchange, "")


@case
def a_reply_address_is_known_while_its_consumer_lives(broker):
    with Session(broker) as client, Session(broker) as server:
        requests = server.queue(exclusive=False)
        inbox = Inbox(client, REPLY_TO)
        client.publish(requests, b"x", reply_to=REPLY_TO)
        address = server.get(requests, auto_ack=True)[1].reply_to
        equal(server.channel.queue_declare(address, passive=True).method.queue, address)
        client.channel.basic_cancel(inbox.tag)
        client.barrier()
        channel = server.confirming()
        one_of(_is_returned(channel, address), (True, False))  # RabbitMQ does not return it
        check(server.connection.is_open)


def _is_returned(channel, key):
    try:
        channel.basic_publish("", key, b"late", mandatory=True)
    except pika.exceptions.UnroutableError:
        return True
    return False


@case
def direct_reply_to_errors(broker):
    with Session(broker) as session:
        queue = session.queue()
        with channel_closes(session, 406, "PRECONDITION_FAILED - reply consumer cannot acknowledge") as channel:
            channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=False)
        with channel_closes(session, 406, "PRECONDITION_FAILED - reply consumer already set") as channel:
            channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)
            channel.basic_consume(REPLY_TO, lambda *_: None, auto_ack=True)
        with channel_closes(session, 406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
            session.publish(queue, b"x", reply_to=REPLY_TO)
        equal(session.channel.queue_declare(REPLY_TO, passive=True).method.queue, REPLY_TO)


@case
def replies_of_many_clients_do_not_mix(broker):
    with Session(broker) as server:
        requests = server.queue(exclusive=False)
        clients = [Session(broker) for _ in range(8)]
        try:
            inboxes = [Inbox(client, REPLY_TO) for client in clients]
            for number, client in enumerate(clients):
                client.publish(requests, b"%d" % number, reply_to=REPLY_TO)
            for _ in clients:
                _, properties, body = server.get(requests, auto_ack=True)
                server.channel.basic_publish("", properties.reply_to, b"re: " + body)
            for number, inbox in enumerate(inboxes):
                equal(inbox.wait(1), [b"re: %d" % number])
        finally:
            for client in clients:
                client.connection.close()
