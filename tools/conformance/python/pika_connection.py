"""pika, blocking: connections, channels, vhosts and permissions."""

import re
import time

import pika
import pika.exceptions

from harness import Skip, case, check, equal, eventually, matches, one_of, unique
from pika_support import (
    Session,
    channel_closes,
    connection_closes,
    parameters,
    refused_login,
)

LOGIN_REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
    "For details see the broker logfile."
)


@case
def server_properties_and_capabilities(broker):
    with Session(broker) as session:
        properties = session.connection._impl.server_properties
        for name in ("product", "version", "platform", "copyright", "information", "cluster_name"):
            check(isinstance(properties.get(name), str) and properties[name], f"no server property {name}")
        for name in (
            "publisher_confirms",
            "exchange_exchange_bindings",
            "basic.nack",
            "consumer_cancel_notify",
            "connection.blocked",
            "consumer_priorities",
            "authentication_failure_close",
            "per_consumer_qos",
            "direct_reply_to",
        ):
            equal(properties["capabilities"].get(name), True, f"capability {name}")


@case
def tuning_is_what_rabbitmq_offers(broker):
    with Session(broker) as session:
        tuned = session.connection._impl.params
        equal(tuned.channel_max, 2047, "channel_max")
        equal(tuned.frame_max, 131072, "frame_max")
        equal(tuned.heartbeat, 60, "heartbeat")


@case
def bad_password_is_403(broker):
    error = refused_login(broker, password="wrong")
    matches(f"{error!r}", f".*403.*{re.escape(LOGIN_REFUSED)}.*")


@case
def unknown_user_is_403_with_the_same_text(broker):
    error = refused_login(broker, user="nobody-of-that-name")
    matches(f"{error!r}", f".*403.*{re.escape(LOGIN_REFUSED)}.*")


@case
def unknown_vhost_is_530(broker):
    error = refused_login(broker, vhost="no-such-vhost")
    matches(f"{error!r}", r".*530.*NOT_ALLOWED - vhost no-such-vhost not found.*")


@case
def the_vhost_name_is_taken_literally(broker):
    refused_login(broker, vhost="")
    refused_login(broker, vhost="//")


@case
def many_connections_at_once(broker):
    connections = [pika.BlockingConnection(parameters(broker)) for _ in range(50)]
    try:
        for connection in connections:
            queue = connection.channel().queue_declare("", exclusive=True).method.queue
            check(queue.startswith("amq.gen-"))
    finally:
        for connection in connections:
            connection.close()


@case
def many_channels_on_one_connection(broker):
    with Session(broker) as session:
        queue = session.queue()
        channels = [session.connection.channel() for _ in range(300)]
        for number, channel in enumerate(channels):
            session.publish(queue, str(number).encode(), channel=channel)
        for channel in channels:
            session.barrier(channel)
        equal(sorted(map(int, session.bodies(queue))), list(range(300)))
        for channel in channels:
            channel.close()
        again = session.connection.channel(channel_number=int(channels[7]))
        again.queue_declare(queue, passive=True)


@case
def a_short_heartbeat_keeps_an_idle_connection(broker):
    with Session(broker, heartbeat=1) as session:
        equal(session.connection._impl.params.heartbeat, 1, "heartbeat")
        session.connection.sleep(3.3)
        equal(session.bodies(session.queue()), [])


@case
def heartbeat_zero_turns_it_off(broker):
    with Session(broker, heartbeat=0) as session:
        session.queue()


@case
def update_secret_is_answered(broker):
    with Session(broker) as session:
        session.connection.update_secret("guest", "as good as the old one")
        session.queue()


@case
def a_small_frame_max_is_kept_both_ways(broker):
    body = bytes(range(256)) * 400
    with Session(broker, frame_max=4096) as session:
        equal(session.connection._impl.params.frame_max, 4096, "frame_max")
        queue = session.queue()
        session.publish(queue, body, headers={"pad": "x" * 3000})
        check(session.get(queue, auto_ack=True)[2] == body, "the body changed")


@case
def a_smaller_channel_max_is_kept(broker):
    with Session(broker, channel_max=5) as session:
        equal(session.connection._impl.params.channel_max, 5, "channel_max")
        for _ in range(4):
            session.connection.channel()
        try:
            session.connection.channel()
        except pika.exceptions.NoFreeChannels:
            return
        raise AssertionError("pika opened a sixth channel")


@case
def client_properties_of_every_type_are_taken(broker):
    properties = {"product": "conformance", "n": 1, "list": [1, "two", {"three": 3.0 > 2}], "none": None}
    with Session(broker, client_properties=properties) as session:
        session.queue()


@case
def closing_and_opening_again_and_again(broker):
    for _ in range(20):
        pika.BlockingConnection(parameters(broker)).close()


@case
def a_closed_connection_takes_its_exclusive_queues_along(broker):
    with Session(broker) as watcher:
        session = Session(broker)
        queue = session.queue()
        session.connection.close()

        def is_gone():
            channel = watcher.connection.channel()
            try:
                channel.queue_declare(queue, passive=True)
                channel.close()
            except pika.exceptions.ChannelClosedByBroker as error:
                return error.reply_code == 404
            return False

        eventually(is_gone, "the exclusive queue is deleted")


@case
def channel_flow_active_is_answered_and_inactive_is_540(broker):
    with Session(broker) as session:
        check(session.channel.flow(True))
        with connection_closes(session, 540, "NOT_IMPLEMENTED - active=false") as channel:
            channel.flow(False)


# With definitions.json loaded: user `limited` with the password `limited` may configure and write `own-.*` (write
# also to the default exchange), read `own-.*|readable-.*`, in `/`; vhost `elsewhere` is for guest alone.


def limited(broker):
    if not broker.has_definitions:
        raise Skip("definitions.json is not loaded")
    return Session(broker, user="limited", password="limited")


def refused(session, access, what):
    access = "" if session.broker.is_rabbitmq_3 else f"{access} "
    return f"ACCESS_REFUSED - {access}access to {what} in vhost '/' refused for user 'limited'"


@case
def a_vhost_without_permission_is_530(broker):
    limited(broker).connection.close()
    error = refused_login(broker, user="limited", password="limited", vhost="elsewhere")
    text = repr(error).replace("\\", "")
    matches(text, r".*530.*NOT_ALLOWED - access to vhost 'elsewhere' refused for user 'limited'.*")


@case
def vhosts_are_separate_worlds(broker):
    if not broker.has_definitions:
        raise Skip("definitions.json is not loaded")
    with Session(broker) as here, Session(broker, vhost="elsewhere") as there:
        name = here.queue()
        with channel_closes(there, 404, f"NOT_FOUND - no queue '{name}' in vhost 'elsewhere'") as channel:
            channel.queue_declare(name, passive=True)
        there.queue(name)
        here.publish(name, b"here")
        there.publish(name, b"there")
        equal(here.bodies(name, 1), [b"here"])
        equal(there.bodies(name, 1), [b"there"])


@case
def what_the_definitions_define_is_there(broker):
    if not broker.has_definitions:
        raise Skip("definitions.json is not loaded")
    name = "conformance-defined"
    with Session(broker, vhost="elsewhere") as session:
        session.channel.exchange_declare(name, "topic", durable=True)
        session.channel.queue_declare(name, durable=True, arguments={"x-max-length": 100})
        body = unique().encode()
        session.channel.basic_publish(name, "defined.by.a.file", body)
        eventually(lambda: body in session.bodies(name), "the message, by the binding")


@case
def configure_permission_is_enforced(broker):
    with limited(broker) as session:
        queue, exchange = unique("foreign"), unique("foreign-x")
        with channel_closes(session, 403, refused(session, "configure", f"queue '{queue}'")) as channel:
            channel.queue_declare(queue)
        with channel_closes(session, 403, refused(session, "configure", f"exchange '{exchange}'")) as channel:
            channel.exchange_declare(exchange, "fanout")
        with channel_closes(session, 403, refused(session, "configure", f"queue '{queue}'")) as channel:
            channel.queue_delete(queue)
        with channel_closes(session, 403, refused(session, "configure", f"exchange '{exchange}'")) as channel:
            channel.exchange_delete(exchange)
        own = session.queue("own-" + unique())
        session.publish(own, b"mine")
        equal(session.bodies(own, 1), [b"mine"])


@case
def write_permission_is_enforced(broker):
    with limited(broker) as session, Session(broker) as owner:
        exchange = owner.exchange("fanout")
        queue = owner.queue(exclusive=False)
        own = session.queue("own-" + unique())
        with channel_closes(session, 403, refused(session, "write", f"exchange '{exchange}'")) as channel:
            channel.basic_publish(exchange, "", b"")
        with channel_closes(session, 403, refused(session, "write", f"queue '{queue}'")) as channel:
            channel.queue_bind(queue, exchange)
        with channel_closes(session, 403, refused(session, "read", f"exchange '{exchange}'")) as channel:
            channel.queue_bind(own, exchange)
        equal(owner.state(queue).message_count, 0)


@case
def read_permission_is_enforced(broker):
    with limited(broker) as session, Session(broker) as owner:
        queue = owner.queue(exclusive=False)
        readable = owner.queue("readable-" + unique(), exclusive=False)
        owner.publish(readable, b"for all")
        equal(session.get(readable, auto_ack=True)[2], b"for all")
        for attempt in (
            lambda channel: channel.basic_get(queue),
            lambda channel: channel.basic_consume(queue, print),
            lambda channel: channel.queue_purge(queue),
        ):
            with channel_closes(session, 403, refused(session, "read", f"queue '{queue}'")) as channel:
                attempt(channel)


@case
def a_passive_declare_needs_no_permission(broker):
    with limited(broker) as session, Session(broker) as owner:
        queue = owner.queue(exclusive=False)
        session.channel.queue_declare(queue, passive=True)


@case
def a_vanished_client_leaves_nothing_behind(broker):
    with Session(broker) as watcher:
        queue = watcher.queue(exclusive=False)
        watcher.publish(queue, *[b"%d" % n for n in range(10)])
        session = Session(broker)
        session.channel.basic_qos(prefetch_count=5)
        session.channel.basic_consume(queue, lambda *_: None)
        eventually(lambda: watcher.ready(queue) == 5, "five of ten are out")
        # Cuts the connection without a word, as a killed process does.
        session.connection._impl._transport._sock.shutdown(2)
        eventually(lambda: watcher.state(queue).message_count == 10, "all are back")
        equal(watcher.state(queue).consumer_count, 0, "consumers")
        got = [watcher.get(queue, auto_ack=True) for _ in range(10)]
        equal([body for _, _, body in got], [b"%d" % n for n in range(10)])
        equal([method.redelivered for method, _, _ in got], [True] * 5 + [False] * 5)


@case
def two_clients_do_not_see_each_others_channels(broker):
    with Session(broker) as one, Session(broker) as two:
        one_of(int(one.channel), (1,))
        one_of(int(two.channel), (1,))
        queue = unique()
        one.queue(queue, exclusive=False)
        with channel_closes(two, 404, f"NOT_FOUND - no queue '{queue}-other' in vhost '/'") as channel:
            channel.queue_declare(queue + "-other", passive=True)
        one.publish(queue, b"still here")
        equal(two.bodies(queue, 1), [b"still here"])


@case
def an_idle_connection_stays(broker):
    begun = time.monotonic()
    with Session(broker, heartbeat=2) as session:
        session.pump_until(lambda: time.monotonic() - begun > 5.0, "five seconds")
        session.queue()
