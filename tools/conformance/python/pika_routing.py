"""pika, blocking: where messages go, and where they go instead."""

import re

import pika

from harness import case, check, equal, eventually, unique
from pika_support import Inbox, Session, channel_closes


def bound(session, exchange, *keys, arguments=None):
    """A queue bound with each of the keys."""
    queue = session.queue()
    for key in keys:
        session.channel.queue_bind(queue, exchange, routing_key=key, arguments=arguments)
    return queue


def send(session, exchange, key, body=None, **properties):
    body = key.encode() if body is None else body
    session.channel.basic_publish(exchange, key, body, pika.BasicProperties(**properties))


@case
def the_default_exchange_routes_by_queue_name(broker):
    with Session(broker) as session:
        one, two = session.queue(), session.queue()
        session.publish(one, b"for one")
        session.publish(two, b"for two")
        session.publish(unique(), b"for nobody")
        equal(session.bodies(one, 1), [b"for one"])
        equal(session.bodies(two, 1), [b"for two"])


@case
def direct(broker):
    with Session(broker) as session:
        exchange = session.exchange("direct")
        one = bound(session, exchange, "a", "b")
        two = bound(session, exchange, "b", "c")
        nothing = bound(session, exchange, "")
        for key in ("a", "b", "c", "d", ""):
            send(session, exchange, key)
        equal(session.bodies(one, 2), [b"a", b"b"])
        equal(session.bodies(two, 2), [b"b", b"c"])
        equal(session.bodies(nothing, 1), [b""])
        session.channel.queue_unbind(one, exchange, routing_key="b")
        send(session, exchange, "b")
        equal(session.bodies(two, 1), [b"b"])
        equal(session.bodies(one), [])


@case
def fanout_ignores_the_key(broker):
    with Session(broker) as session:
        exchange = session.exchange("fanout")
        queues = [bound(session, exchange, str(n)) for n in range(5)]
        send(session, exchange, "whatever", b"to all")
        for queue in queues:
            equal(session.bodies(queue, 1), [b"to all"])


# A key's words stand between its dots; the empty key has none.
TOPICS = {
    "a.b.c": {"a.b.c"},
    "*.b.*": {"a.b.c", "x.b.c", ".b."},
    "a.#": {"a", "a.b", "a.b.c", "a..c", "a."},
    "#.c": {"a.b.c", "x.b.c", "c", "a..c"},
    "#": {"a", "a.b", "a.b.c", "x.b.c", "c", "", ".", "a..c", ".b.", "a.", "lazy.orange.male.rabbit"},
    "*": {"a", "c"},
    "*.*": {"a.b", ".", "a."},
    "#.*": {"a", "a.b", "a.b.c", "x.b.c", "c", ".", "a..c", ".b.", "a.", "lazy.orange.male.rabbit"},
    "#.#": {"a", "a.b", "a.b.c", "x.b.c", "c", "", ".", "a..c", ".b.", "a.", "lazy.orange.male.rabbit"},
    "a.*.#": {"a.b", "a.b.c", "a..c", "a."},
    "a.#.c": {"a.b.c", "a..c"},
    "a..c": {"a..c"},
    "#.b.#": {"a.b", "a.b.c", "x.b.c", ".b."},
    "*.orange.#": {"lazy.orange.male.rabbit"},
    "": {""},
}
TOPIC_KEYS = sorted(TOPICS["#"])


@case
def topic_patterns(broker):
    with Session(broker) as session:
        exchange = session.exchange("topic")
        queues = {pattern: bound(session, exchange, pattern) for pattern in TOPICS}
        for key in TOPIC_KEYS:
            send(session, exchange, key)
        for pattern, keys in TOPICS.items():
            got = sorted(body.decode() for body in session.bodies(queues[pattern]))
            equal(got, sorted(keys), f"what {pattern!r} matched")


@case
def topic_reaches_a_queue_once_however_many_patterns_match(broker):
    with Session(broker) as session:
        exchange = session.exchange("topic")
        queue = bound(session, exchange, "#", "*", "a", "a.#", "#.a")
        send(session, exchange, "a")
        equal(session.bodies(queue, 1), [b"a"])
        for pattern in ("#", "*", "a", "a.#"):
            session.channel.queue_unbind(queue, exchange, routing_key=pattern)
        send(session, exchange, "b.a")
        send(session, exchange, "a.b")
        equal(session.bodies(queue, 1), [b"b.a"])


HEADERS = [
    {"a": 1, "b": "two"},
    {"a": 1},
    {"b": "two", "c": True},
    {"a": 1, "b": "two", "x-extra": "yes"},
    {"a": 2, "b": "two", "x-extra": "no"},
    {"a": "1"},
    {},
]


def headers_matched(session, arguments):
    exchange = session.exchange("headers")
    queue = session.queue()
    session.channel.queue_bind(queue, exchange, arguments=arguments)
    for number, headers in enumerate(HEADERS):
        send(session, exchange, "ignored", str(number).encode(), headers=headers)
    return [int(body) for body in session.bodies(queue)]


@case
def headers_all(broker):
    with Session(broker) as session:
        equal(headers_matched(session, {"x-match": "all", "a": 1, "b": "two"}), [0, 3])
        equal(headers_matched(session, {"a": 1, "b": "two"}), [0, 3], "without x-match")
        equal(headers_matched(session, {"x-match": "all"}), [0, 1, 2, 3, 4, 5, 6], "nothing asked for")


@case
def headers_any(broker):
    with Session(broker) as session:
        equal(headers_matched(session, {"x-match": "any", "a": 1, "c": True}), [0, 1, 2, 3])
        equal(headers_matched(session, {"x-match": "any"}), [], "nothing asked for")


@case
def headers_ignore_x_names_unless_told(broker):
    with Session(broker) as session:
        equal(headers_matched(session, {"x-match": "all", "a": 1, "x-extra": "no"}), [0, 1, 3])
        equal(headers_matched(session, {"x-match": "any", "c": True, "x-extra": "yes"}), [2])


@case
def headers_all_with_x_and_any_with_x(broker):
    with Session(broker) as session:
        equal(headers_matched(session, {"x-match": "all-with-x", "a": 1, "x-extra": "yes"}), [3])
        equal(headers_matched(session, {"x-match": "any-with-x", "c": True, "x-extra": "no"}), [2, 4])


@case
def headers_void_matches_any_value(broker):
    with Session(broker) as session:
        equal(headers_matched(session, {"x-match": "all", "a": None}), [0, 1, 3, 4, 5])


@case
def headers_without_headers_property(broker):
    with Session(broker) as session:
        queue = session.queue()
        session.channel.queue_bind(queue, "amq.headers", arguments={"x-match": "all", unique(): 1})
        session.channel.basic_publish("amq.headers", "", b"no header at all")
        session.channel.basic_publish("amq.match", "", b"no header at all")
        equal(session.bodies(queue), [])


@case
def an_invalid_x_match_is_406(broker):
    with Session(broker) as session:
        exchange, queue = session.exchange("headers"), session.queue()
        text = re.compile(r"PRECONDITION_FAILED - [Ii]nvalid x-match field value .*; expected all.*any.*")
        with channel_closes(session, 406, text) as channel:
            channel.queue_bind(queue, exchange, arguments={"x-match": "some"})


@case
def bindings_differ_by_arguments_and_repeat_without_effect(broker):
    with Session(broker) as session:
        exchange = session.exchange("headers")
        queue = session.queue()
        for _ in range(2):
            session.channel.queue_bind(queue, exchange, arguments={"a": 1})
        session.channel.queue_bind(queue, exchange, arguments={"b": 2})
        send(session, exchange, "", b"both", headers={"a": 1, "b": 2})
        equal(session.bodies(queue, 1), [b"both"])
        session.channel.queue_unbind(queue, exchange, arguments={"a": 1})
        send(session, exchange, "", b"a", headers={"a": 1})
        send(session, exchange, "", b"b", headers={"b": 2})
        equal(session.bodies(queue, 1), [b"b"])


@case
def exchange_to_exchange(broker):
    with Session(broker) as session:
        entry, middle, end = session.exchange("direct"), session.exchange("topic"), session.exchange("fanout")
        session.channel.exchange_bind(middle, entry, routing_key="a.b")
        session.channel.exchange_bind(end, middle, routing_key="a.*")
        queue = bound(session, end, "")
        send(session, entry, "a.b")
        send(session, entry, "a.c")
        equal(session.bodies(queue, 1), [b"a.b"])
        session.channel.exchange_unbind(end, middle, routing_key="a.*")
        send(session, entry, "a.b")
        equal(session.bodies(queue), [])
        session.channel.exchange_bind(end, middle, routing_key="#")
        session.channel.exchange_delete(middle)
        send(session, entry, "a.b")
        send(session, end, "", b"direct")
        equal(session.bodies(queue, 1), [b"direct"])


@case
def exchange_cycles_end(broker):
    with Session(broker) as session:
        one, two, three = (session.exchange("fanout") for _ in range(3))
        for destination, source in ((two, one), (three, two), (one, three), (one, one), (one, two)):
            session.channel.exchange_bind(destination, source)
        queues = [bound(session, exchange, "") for exchange in (one, two, three)]
        both = session.queue()
        for exchange in (one, two, three):
            session.channel.queue_bind(both, exchange)
        send(session, two, "", b"round")
        for queue in [*queues, both]:
            equal(session.bodies(queue, 1), [b"round"])


@case
def an_internal_exchange_takes_from_exchanges_only(broker):
    with Session(broker) as session:
        internal = session.exchange("fanout", internal=True)
        entry = session.exchange("fanout")
        session.channel.exchange_bind(internal, entry)
        queue = bound(session, internal, "")
        send(session, entry, "", b"by way of another")
        equal(session.bodies(queue, 1), [b"by way of another"])
        text = f"ACCESS_REFUSED - cannot publish to internal exchange '{internal}' in vhost '/'"
        with channel_closes(session, 403, text) as channel:
            channel.basic_publish(internal, "", b"no")


@case
def an_alternate_exchange_takes_what_is_unroutable(broker):
    with Session(broker) as session:
        last = session.exchange("fanout")
        second = session.exchange("direct", arguments={"alternate-exchange": last})
        first = session.exchange("direct", arguments={"alternate-exchange": second})
        one, two, three = (
            bound(session, first, "one"),
            bound(session, second, "two"),
            bound(session, last, ""),
        )
        channel = session.confirming()
        for key in ("one", "two", "three"):
            channel.basic_publish(first, key, key.encode(), mandatory=True)
        equal(session.bodies(one, 1), [b"one"])
        equal(session.bodies(two, 1), [b"two"])
        equal(session.bodies(three, 1), [b"three"])


@case
def an_alternate_exchange_that_is_not_there_loses_the_message(broker):
    with Session(broker) as session:
        exchange = session.exchange("direct", arguments={"alternate-exchange": unique("x")})
        send(session, exchange, "nowhere")
        session.barrier()


@case
def cc_and_bcc_route_to_further_keys(broker):
    with Session(broker) as session:
        exchange = session.exchange("direct")
        queues = {key: bound(session, exchange, key) for key in ("to", "cc1", "cc2", "bcc")}
        twice = bound(session, exchange, "to", "cc1", "bcc")
        headers = {"CC": ["cc1", "cc2"], "BCC": ["bcc"], "mine": "kept"}
        send(session, exchange, "to", b"letter", headers=headers)
        for key, queue in [*queues.items(), ("twice", twice)]:
            method, properties, body = session.get(queue, auto_ack=True)
            equal(body, b"letter")
            equal(properties.headers, {"CC": ["cc1", "cc2"], "mine": "kept"}, f"headers at {key}")
            equal(method.routing_key, "to", "routing key")
            equal(session.bodies(queue), [])


@case
def cc_reaches_queues_by_the_default_exchange(broker):
    with Session(broker) as session:
        one, two, three = session.queue(), session.queue(), session.queue()
        session.publish(one, b"x", headers={"CC": [two, two], "BCC": [three]})
        for queue in (one, two, three):
            equal(session.bodies(queue, 1), [b"x"])


@case
def cc_that_is_no_array_is_406(broker):
    with Session(broker) as session:
        text = re.compile(r"PRECONDITION_FAILED - invalid .*CC.*")
        with channel_closes(session, 406, text) as channel:
            channel.basic_publish("", unique(), b"x", pika.BasicProperties(headers={"CC": "one"}))


@case
def deliveries_name_exchange_and_key(broker):
    with Session(broker) as session:
        exchange = session.exchange("topic")
        queue = bound(session, exchange, "#")
        inbox = Inbox(session, queue)
        send(session, exchange, "some.key", b"x")
        inbox.wait(1)
        method = inbox.methods[0]
        equal(
            (method.exchange, method.routing_key, method.redelivered, method.consumer_tag),
            (exchange, "some.key", False, inbox.tag),
        )


@case
def publishing_to_a_missing_exchange_is_404_on_the_channel(broker):
    with Session(broker) as session:
        missing, queue = unique("x"), session.queue()
        with channel_closes(session, 404, f"NOT_FOUND - no exchange '{missing}' in vhost '/'") as channel:
            channel.basic_publish(missing, "k", b"x" * 300_000)
        session.publish(queue, b"alive")
        equal(session.bodies(queue, 1), [b"alive"])


@case
def a_thousand_bindings_of_one_exchange(broker):
    with Session(broker) as session:
        exchange = session.exchange("topic")
        queue, other = session.queue(), session.queue()
        for number in range(1000):
            session.channel.queue_bind(queue, exchange, routing_key=f"k{number}.*.#")
        session.channel.queue_bind(other, exchange, routing_key="k999.x")
        for number in (0, 500, 999, 1000):
            send(session, exchange, f"k{number}.x")
        equal(session.bodies(queue, 3), [b"k0.x", b"k500.x", b"k999.x"])
        equal(session.bodies(other, 1), [b"k999.x"])
        session.channel.queue_delete(queue)
        eventually(lambda: session.ready(other) == 0, "nothing is left")
        send(session, exchange, "k999.x")
        equal(session.bodies(other, 1), [b"k999.x"])
        check(session.connection.is_open)
