"""The suite of pika's SelectConnection: everything in flight at once."""

import logging
import threading
import time

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection

import harness
from harness import WAIT_SECONDS, case, check, equal, unique
from pika_support import parameters


def drive(broker, scenario, **more):
    """Opens a connection and a channel and runs `scenario(driver)` until it calls `driver.finish()`."""
    driver = Driver(broker, scenario, more)
    driver.run()
    if driver.error:
        raise driver.error
    return driver


class Driver:
    def __init__(self, broker, scenario, more):
        self.scenario = scenario
        self.error = None
        self.finished = False
        self.closed_by_broker = None
        self.channel = None
        self.is_expecting_channel_close = False
        self.connection = SelectConnection(
            parameters(broker, **more),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_open_error,
            on_close_callback=self._on_close,
        )

    def run(self):
        self.connection.ioloop.call_later(WAIT_SECONDS * 2, lambda: self.fail("the scenario does not end"))
        self.connection.ioloop.start()

    def guard(self, function):
        """Wraps a callback so that what it raises ends the scenario."""

        def guarded(*arguments):
            try:
                return function(*arguments)
            except Exception as error:  # noqa: BLE001 - reported by drive()
                self.error = error
                self._stop()

        return guarded

    def fail(self, what):
        if not self.finished:
            self.error = self.error or AssertionError(what)
            self._stop()

    def finish(self):
        self.finished = True
        self._stop()

    def _stop(self):
        if self.connection.is_open:
            self.connection.close()
        else:
            self.connection.ioloop.stop()

    def _on_open(self, connection):
        connection.channel(on_open_callback=self.guard(self._on_channel))

    def _on_channel(self, channel):
        self.channel = channel
        channel.add_on_close_callback(self._on_channel_close)
        self.scenario(self)

    def _on_channel_close(self, _channel, reason):
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker) and not self.is_expecting_channel_close:
            self.fail(f"the channel closed: {reason!r}")

    def _on_open_error(self, _connection, error):
        self.error = error
        self.connection.ioloop.stop()

    def _on_close(self, connection, reason):
        self.closed_by_broker = reason
        if not self.finished and not self.error:
            self.error = reason
        connection.ioloop.stop()


@case
def a_hundred_thousand_messages_with_confirms_and_acknowledgements(broker):
    count, window, prefetch = 100_000, 2_000, 1_000
    queue = unique()
    state = {"published": 0, "confirmed": 0, "received": 0}

    def scenario(driver):
        channel = driver.channel
        channel.confirm_delivery(driver.guard(on_confirm))
        channel.basic_qos(prefetch_count=prefetch)
        channel.queue_declare(queue, exclusive=True, callback=driver.guard(lambda _frame: start(driver)))
        state["driver"] = driver

    def start(driver):
        driver.channel.basic_consume(queue, driver.guard(on_message))
        publish()

    def publish():
        channel = state["driver"].channel
        while state["published"] < count and state["published"] - state["confirmed"] < window:
            channel.basic_publish("", queue, b"%d" % state["published"])
            state["published"] += 1

    def on_confirm(frame):
        check(isinstance(frame.method, pika.spec.Basic.Ack), "nacked")
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            check(tag > state["confirmed"], "confirmed twice")
            state["confirmed"] = tag
        else:
            # In order as far as RabbitMQ goes for one classic queue.
            state["confirmed"] += 1
        if state["published"] - state["confirmed"] <= window // 2:
            publish()
        end()

    def on_message(channel, method, _properties, body):
        check(body == b"%d" % state["received"], f"message {body!r} where {state['received']} is due")
        check(not method.redelivered, "redelivered")
        state["received"] += 1
        if state["received"] % 200 == 0 or state["received"] == count:
            channel.basic_ack(method.delivery_tag, multiple=True)
        end()

    def end():
        if state["received"] == count and state["confirmed"] == count:
            state["driver"].finish()

    drive(broker, scenario)


@case
def windowed_confirms_cover_every_number_once(broker):
    count = 10_000
    queue = unique()
    outstanding = set(range(1, count + 1))

    def scenario(driver):
        def on_confirm(frame):
            tag = frame.method.delivery_tag
            settled = {t for t in outstanding if t <= tag} if frame.method.multiple else {tag}
            check(settled <= outstanding, f"{tag} confirmed twice, or never published")
            outstanding.difference_update(settled)
            if not outstanding:
                driver.finish()

        def start(_frame):
            for number in range(count):
                # Every third one is unroutable and confirmed all the same.
                driver.channel.basic_publish("", queue if number % 3 else unique(), b"x")

        driver.channel.confirm_delivery(driver.guard(on_confirm), callback=driver.guard(
            lambda _frame: driver.channel.queue_declare(queue, exclusive=True, callback=driver.guard(start))))

    drive(broker, scenario)


@case
def each_return_comes_before_its_confirm(broker):
    count = 500
    events = []

    def scenario(driver):
        def on_return(_channel, method, properties, _body):
            equal(method.reply_code, 312)
            events.append(("return", int(properties.message_id)))

        def on_confirm(frame):
            first = 1 + max([tag for kind, tag in events if kind == "confirm"], default=0)
            tag = frame.method.delivery_tag
            for confirmed in range(first if frame.method.multiple else tag, tag + 1):
                check(("return", confirmed) in events, f"{confirmed} confirmed before it was returned")
                events.append(("confirm", confirmed))
            if len(events) == 2 * count:
                driver.finish()

        def start(_frame):
            for number in range(1, count + 1):
                driver.channel.basic_publish(
                    "", "nowhere-" + queue, b"x" * (number % 7), pika.BasicProperties(message_id=str(number)),
                    mandatory=True,
                )

        queue = unique()
        driver.channel.add_on_return_callback(driver.guard(on_return))
        driver.channel.confirm_delivery(driver.guard(on_confirm), callback=driver.guard(start))

    drive(broker, scenario)


@case
def nacks_among_confirms(broker):
    count, room = 50, 10
    queue = unique()
    answers = {}

    def scenario(driver):
        def on_confirm(frame):
            is_ack = isinstance(frame.method, pika.spec.Basic.Ack)
            tag = frame.method.delivery_tag
            tags = [t for t in range(1, tag + 1) if t not in answers] if frame.method.multiple else [tag]
            for one in tags:
                check(one not in answers, f"{one} answered twice")
                answers[one] = is_ack
            if len(answers) == count:
                equal(sum(answers.values()), room, "acked")
                driver.finish()

        def start(_frame):
            for _ in range(count):
                driver.channel.basic_publish("", queue, b"x")

        driver.channel.confirm_delivery(driver.guard(on_confirm))
        driver.channel.queue_declare(
            queue, exclusive=True, arguments={"x-max-length": room, "x-overflow": "reject-publish"},
            callback=driver.guard(start))

    drive(broker, scenario)


@case
def pipelined_declares_and_deletes(broker):
    count = 500
    done = []

    def scenario(driver):
        channels = []

        def on_channel(channel):
            channels.append(channel)
            if len(channels) == 10:
                for number in range(count):
                    name = f"{prefix}-{number}"
                    channels[number % 10].queue_declare(name, exclusive=True, callback=driver.guard(on_declared))

        def on_declared(frame):
            name = frame.method.queue
            channels[0].queue_delete(name, callback=driver.guard(on_deleted))

        def on_deleted(_frame):
            done.append(1)
            if len(done) == count:
                driver.finish()

        prefix = unique()
        for _ in range(10):
            driver.connection.channel(on_open_callback=driver.guard(on_channel))

    drive(broker, scenario)


@case
def no_wait_declares_binds_and_consumes(broker):
    def scenario(driver):
        got = []
        exchange, queue = unique("x"), unique()
        channel = driver.channel
        # Without callbacks pika sends these with the no-wait bit where the method has one.
        channel.exchange_declare(exchange, "fanout", auto_delete=True, callback=None)
        channel.queue_declare(queue, exclusive=True, callback=None)
        channel.queue_bind(queue, exchange, callback=None)
        channel.confirm_delivery(lambda _frame: None, callback=None)

        def on_message(_channel, _method, _properties, body):
            got.append(body)
            if got == [b"1", b"2"]:
                driver.finish()

        channel.basic_consume(queue, driver.guard(on_message), auto_ack=True)
        channel.basic_publish(exchange, "", b"1")
        channel.basic_publish(exchange, "", b"2")

    drive(broker, scenario)


@case
def a_channel_closed_by_the_broker_and_a_new_one(broker):
    def scenario(driver):
        missing = unique()
        driver.is_expecting_channel_close = True

        def on_close(_channel, reason):
            equal(reason.reply_code, 404)
            equal(reason.reply_text, f"NOT_FOUND - no queue '{missing}' in vhost '/'")
            driver.connection.channel(on_open_callback=driver.guard(lambda _channel: driver.finish()))

        driver.channel.add_on_close_callback(driver.guard(on_close))
        for _ in range(50):  # what follows the error is ignored
            driver.channel.basic_consume(missing, lambda *_: None)

    drive(broker, scenario)


@case
def the_connection_is_closed_by_the_broker_with_a_reason(broker):
    def scenario(driver):
        driver.channel.basic_qos(prefetch_size=7)

    try:
        drive(broker, scenario)
        raise AssertionError("the connection stays open")
    except pika.exceptions.ConnectionClosedByBroker as error:
        equal((error.reply_code, error.reply_text), (540, "NOT_IMPLEMENTED - prefetch_size!=0 (7)"))


@case
def cancel_and_close_with_deliveries_in_flight(broker):
    def scenario(driver):
        queue = unique()
        seen = []
        channel = driver.channel

        def on_message(_channel, method, _properties, _body):
            seen.append(method.delivery_tag)
            if len(seen) == 100:
                channel.basic_cancel(method.consumer_tag, callback=driver.guard(on_cancelled))

        def on_cancelled(_frame):
            channel.close()
            driver.connection.channel(on_open_callback=driver.guard(on_channel))

        def on_channel(again):
            # The queue may learn of the closed channel after the client does.
            def count():
                again.queue_declare(queue, passive=True, callback=driver.guard(on_counted))

            def on_counted(frame):
                if (frame.method.message_count, frame.method.consumer_count) == (5000, 0):
                    driver.finish()
                else:
                    driver.connection.ioloop.call_later(0.01, count)

            count()

        def start(_frame):
            for _ in range(5000):
                channel.basic_publish("", queue, b"x")
            channel.basic_consume(queue, driver.guard(on_message))

        channel.queue_declare(queue, exclusive=True, callback=driver.guard(start))

    drive(broker, scenario)


@case
def large_and_small_messages_interleave_on_channels(broker):
    sizes = {0: 3_000_000, 1: 10, 2: 200_000, 3: 0}

    def scenario(driver):
        got = {number: 0 for number in sizes}

        def on_channel(number, channel):
            queue = unique()

            def on_message(_channel, _method, _properties, body):
                equal(len(body), sizes[number], f"size on channel {number}")
                check(body == bytes([number]) * sizes[number], "the body changed")
                got[number] += 1
                if all(count == 5 for count in got.values()):
                    driver.finish()

            def start(_frame):
                channel.basic_consume(queue, driver.guard(on_message), auto_ack=True)
                for _ in range(5):
                    channel.basic_publish("", queue, bytes([number]) * sizes[number])

            channel.queue_declare(queue, exclusive=True, callback=driver.guard(start))

        for number in sizes:
            driver.connection.channel(
                on_open_callback=driver.guard(lambda channel, number=number: on_channel(number, channel)))

    drive(broker, scenario)


@case
def an_idle_select_connection_lives_by_heartbeats(broker):
    def scenario(driver):
        driver.connection.ioloop.call_later(3.3, driver.finish)

    driver = drive(broker, scenario, heartbeat=1)
    check(isinstance(driver.closed_by_broker, pika.exceptions.ConnectionClosedByClient), repr(driver.closed_by_broker))


@case
def many_connections_in_threads(broker):
    errors = []

    def one():
        queue = unique()
        got = []

        def scenario(driver):
            def on_message(_channel, _method, _properties, body):
                got.append(body)
                if len(got) == 200:
                    driver.finish()

            def start(_frame):
                driver.channel.basic_consume(queue, driver.guard(on_message), auto_ack=True)
                for number in range(200):
                    driver.channel.basic_publish("", queue, b"%d" % number)

            driver.channel.queue_declare(queue, exclusive=True, callback=driver.guard(start))

        try:
            drive(broker, scenario)
            equal(got, [b"%d" % number for number in range(200)])
        except Exception as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + WAIT_SECONDS
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    check(not errors, repr(errors))


def prepare(broker):
    logging.disable(logging.CRITICAL)
    del broker


if __name__ == "__main__":
    harness.main(prepare)
