"""The suite of Debian's amqp-tools, on the C client librabbitmq: its five programs, started as a shell would."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

import harness  # noqa: E402
from harness import WAIT_SECONDS, case, check, equal, unique  # noqa: E402


class Result:
    def __init__(self, process):
        self.code = process.returncode
        self.out = process.stdout
        self.error = process.stderr.decode(errors="replace")


def start(broker, program, *arguments, url=None, **options):
    return subprocess.run(
        [f"amqp-{program}", "--url", url or broker.url(), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=WAIT_SECONDS, **options)


def run(broker, program, *arguments, **options):
    """Runs one of the programs, which must succeed; returns its output."""
    result = Result(start(broker, program, *arguments, **options))
    equal(result.code, 0, f"exit code of amqp-{program} ({result.error.strip()})")
    return result.out


def fails(broker, text, program, *arguments, **options):
    result = Result(start(broker, program, *arguments, **options))
    check(result.code != 0, f"amqp-{program} succeeded where {text!r} is due")
    check(text in result.error, f"{text!r} is not in {result.error!r}")


class Queue:
    def __init__(self, broker, *arguments):
        self.broker = broker
        self.name = unique()
        equal(run(broker, "declare-queue", "-q", self.name, *arguments).strip().decode(), self.name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        start(self.broker, "delete-queue", "-q", self.name)

    def publish(self, body, *arguments):
        run(self.broker, "publish", "-r", self.name, *arguments, input=body)

    def get(self):
        return run(self.broker, "get", "-q", self.name)

    def is_empty(self):
        result = Result(start(self.broker, "get", "-q", self.name))
        return result.code == 2 and result.out == b""

    def delete(self, *arguments):
        return int(run(self.broker, "delete-queue", "-q", self.name, *arguments))


@case
def publish_and_get(broker):
    with Queue(broker) as queue:
        check(queue.is_empty(), "not empty")
        queue.publish(b"one")
        queue.publish(b"two", "-p", "-C", "text/plain", "-E", "identity", "-H", "a: b", "-t", "reply")
        equal(queue.get(), b"one")
        equal(queue.get(), b"two")
        check(queue.is_empty(), "not empty")


@case
def publish_from_the_command_line(broker):
    with Queue(broker) as queue:
        queue.publish(b"", "-b", "a body")
        equal(queue.get(), b"a body")


@case
def line_by_line(broker):
    with Queue(broker) as queue:
        queue.publish(b"".join(b"line %d\n" % number for number in range(200)), "-l")
        out = run(broker, "consume", "-q", queue.name, "-c", "200", "cat")
        equal(out, b"".join(b"line %d\n" % number for number in range(200)))
        check(queue.is_empty(), "consumed but not acknowledged")


@case
def a_large_and_an_empty_message(broker):
    large = os.urandom(3_000_000)
    with Queue(broker) as queue:
        queue.publish(large)
        queue.publish(b"")
        check(queue.get() == large, "the body changed")
        equal(queue.get(), b"")


@case
def consume_with_prefetch(broker):
    with Queue(broker) as queue:
        queue.publish(b"".join(b"%d\n" % number for number in range(50)), "-l")
        out = run(broker, "consume", "-q", queue.name, "-p", "3", "-c", "50", "cat")
        equal([int(line) for line in out.split()], list(range(50)))


@case
def consume_without_acknowledgements(broker):
    with Queue(broker) as queue:
        queue.publish(b"".join(b"%d\n" % number for number in range(20)), "-l")
        out = run(broker, "consume", "-q", queue.name, "-A", "-c", "20", "cat")
        equal([int(line) for line in out.split()], list(range(20)))


@case
def what_is_not_consumed_stays(broker):
    with Queue(broker) as queue:
        queue.publish(b"1\n2\n3\n", "-l")
        equal(run(broker, "consume", "-q", queue.name, "-p", "1", "-c", "1", "cat"), b"1\n")
        equal(run(broker, "consume", "-q", queue.name, "-p", "1", "-c", "2", "cat"), b"2\n3\n")


@case
def a_killed_consumer_gives_its_message_back(broker):
    with Queue(broker) as queue:
        queue.publish(b"hard")
        command = ["amqp-consume", "--url", broker.url(), "-q", queue.name, "sleep", "60"]
        consumer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        harness.eventually(lambda: is_in_use(broker, queue.name), "the consumer has the message")
        os.killpg(consumer.pid, signal.SIGKILL)
        consumer.wait()
        with tempfile.NamedTemporaryFile() as file:
            run(broker, "consume", "-q", queue.name, "-c", "1", "tee", file.name)
            equal(file.read(), b"hard")


def is_in_use(broker, name):
    """Whether the queue is in use and so refuses to be deleted."""
    result = Result(start(broker, "delete-queue", "-q", name, "--if-unused", "--if-empty"))
    check(result.code != 0, "the queue was deleted although it has a message or a consumer")
    return "in use" in result.error


@case
def consume_from_an_exclusive_queue_bound_to_an_exchange(broker):
    # The consumer is ready when its queue is bound; the publisher repeats itself until it is heard.
    key = unique("key")
    command = ["amqp-consume", "--url", broker.url(), "-q", unique(), "-x", "-e", "amq.topic", "-r", key, "-c", "1", "cat"]
    consumer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        def heard():
            run(broker, "publish", "-e", "amq.topic", "-r", key, "-b", "news")
            return consumer.poll() is not None

        harness.eventually(heard, "the consumer hears")
        equal(consumer.returncode, 0)
        check(consumer.stdout.read().startswith(b"news"))
    finally:
        consumer.kill()
        consumer.wait()


@case
def publish_to_the_predeclared_exchanges(broker):
    for exchange in ("amq.direct", "amq.fanout", "amq.topic", "amq.headers"):
        run(broker, "publish", "-e", exchange, "-r", unique(), "-b", "nobody listens")


@case
def a_server_named_queue_goes_with_its_connection(broker):
    name = run(broker, "declare-queue", "-q", "").strip().decode()
    check(name.startswith("amq.gen-"), name)
    # amqp-declare-queue makes it neither exclusive nor auto-delete.
    equal(int(run(broker, "delete-queue", "-q", name)), 0)


@case
def durable_and_not_are_different(broker):
    with Queue(broker) as queue:
        run(broker, "declare-queue", "-q", queue.name)
        fails(
            broker,
            f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue.name}' in vhost '/': "
            "received 'true' but current is 'false'",
            "declare-queue", "-q", queue.name, "-d")
    with Queue(broker, "-d") as queue:
        run(broker, "declare-queue", "-q", queue.name, "-d")


@case
def delete_if_empty_and_if_unused(broker):
    with Queue(broker) as queue:
        queue.publish(b"x")
        fails(broker, f"PRECONDITION_FAILED - queue '{queue.name}' in vhost '/' not empty", "delete-queue", "-q", queue.name, "--if-empty")
        equal(queue.delete("--if-unused"), 1)
        fails(broker, f"NOT_FOUND - no queue '{queue.name}' in vhost '/'", "get", "-q", queue.name)


@case
def missing_queues_and_exchanges_are_404(broker):
    missing = unique()
    fails(broker, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "get", "-q", missing)
    fails(broker, f"NOT_FOUND - no queue '{missing}' in vhost '/'", "consume", "-q", missing, "cat")


@case
def reserved_names_are_403(broker):
    fails(broker, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'", "declare-queue", "-q", "amq.mine")


@case
def bad_password_is_403(broker):
    fails(broker, "ACCESS_REFUSED", "publish", "-r", "x", "-b", "x", url=broker.url(password="wrong"))


@case
def unknown_vhost_is_530(broker):
    fails(broker, "NOT_ALLOWED - vhost nowhere not found", "publish", "-r", "x", "-b", "x", url=broker.url(vhost="nowhere"))


@case
def with_a_heartbeat(broker):
    with Queue(broker) as queue:
        queue.publish(b"x", "--heartbeat=1")
        out = run(broker, "consume", "-q", queue.name, "-c", "1", "--heartbeat=1", "cat")
        equal(out, b"x")


if __name__ == "__main__":
    harness.main()
