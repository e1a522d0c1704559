"""The suite of Celery: a real worker process, results by `rpc://`, retries, late acknowledgements."""

import datetime
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

import harness
from harness import WAIT_SECONDS, case, check, equal, eventually

HERE = pathlib.Path(__file__).parent
RESULT_SECONDS = 40

QUEUE = f"{harness._RUN}-celery"
WORKER = None
LOG = None


def start_worker(broker, name, pool):
    global LOG
    LOG = pathlib.Path(tempfile.gettempdir()) / f"{QUEUE}-{name}.log"
    environment = dict(os.environ, CONFORMANCE_URL=broker.url(), CONFORMANCE_QUEUE=QUEUE, PYTHONUNBUFFERED="1")
    command = [
        sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-n", f"{name}-{QUEUE}@%h", "--loglevel=INFO",
        *pool, "--without-mingle",
    ]
    with open(LOG, "wb") as log:
        return subprocess.Popen(command, cwd=HERE, env=environment, stdout=log, stderr=subprocess.STDOUT)


def stop_worker(worker):
    worker.send_signal(signal.SIGTERM)
    try:
        return worker.wait(WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        return None


def tasks():
    import celery_app

    return celery_app


@case
def a_task_and_its_result(broker):
    equal(tasks().add.delay(2, 3).get(timeout=RESULT_SECONDS), 5)


@case
def a_thousand_tasks(broker):
    results = [tasks().add.delay(number, 1) for number in range(1000)]
    equal([result.get(timeout=RESULT_SECONDS) for result in results], [number + 1 for number in range(1000)])


@case
def tasks_acknowledged_early(broker):
    results = [tasks().early.delay(number) for number in range(100)]
    equal([result.get(timeout=RESULT_SECONDS) for result in results], list(range(100)))


@case
def retries_until_success(broker):
    equal(tasks().succeeds_at_last.delay(3).get(timeout=RESULT_SECONDS), 3)


@case
def retries_run_out(broker):
    try:
        tasks().never_succeeds.delay().get(timeout=RESULT_SECONDS)
        raise AssertionError("it succeeded")
    except ValueError as error:
        equal(str(error), "never")


@case
def a_failure_comes_back(broker):
    try:
        tasks().fails.delay().get(timeout=RESULT_SECONDS)
        raise AssertionError("it succeeded")
    except KeyError as error:
        equal(error.args, ("on purpose",))


@case
def groups_and_chains(broker):
    import celery

    app = tasks()
    equal(celery.group(app.add.s(n, n) for n in range(50))().get(timeout=RESULT_SECONDS), [2 * n for n in range(50)])
    equal(celery.chain(app.add.s(1, 2), app.add.s(3), app.add.s(4))().get(timeout=RESULT_SECONDS), 10)


@case
def countdowns_and_expiries(broker):
    begun = time.monotonic()
    equal(tasks().add.apply_async((1, 1), countdown=0.5).get(timeout=RESULT_SECONDS), 2)
    check(time.monotonic() - begun >= 0.4, "too early")
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=60)
    equal(tasks().add.apply_async((1, 2), expires=soon).get(timeout=RESULT_SECONDS), 3)


@case
def priorities_and_another_exchange(broker):
    results = [tasks().add.apply_async((n, 0), priority=n % 10) for n in range(50)]
    equal([result.get(timeout=RESULT_SECONDS) for result in results], list(range(50)))
    result = tasks().add.apply_async((4, 4), exchange=f"{QUEUE}-topic", routing_key="work.of.any.kind")
    equal(result.get(timeout=RESULT_SECONDS), 8)


@case
def large_arguments_and_results(broker):
    value = {"text": "ö" * 500_000, "list": list(range(10_000))}
    equal(tasks().echo.delay(value).get(timeout=RESULT_SECONDS), value)


@case
def results_for_several_threads(broker):
    errors = []

    def one(base):
        try:
            results = [tasks().add.delay(base, number) for number in range(50)]
            equal([result.get(timeout=RESULT_SECONDS) for result in results], [base + number for number in range(50)])
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)

    threads = [threading.Thread(target=one, args=(base * 1000,)) for base in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(RESULT_SECONDS)
    check(not errors, repr(errors))


@case
def control_commands_reach_the_worker(broker):
    control = tasks().app.control
    answers = eventually(lambda: control.ping(timeout=1), "an answer to ping")
    equal(list(answers[0].values()), [{"ok": "pong"}])
    check(control.inspect(timeout=5).registered(), "no registered tasks")
    tasks().app.control.rate_limit("celery_app.forgotten", "100/s")


@case
def tasks_without_results(broker):
    for _ in range(50):
        tasks().forgotten.delay()
    equal(tasks().add.delay(1, 1).get(timeout=RESULT_SECONDS), 2)


@case
def a_killed_worker_gives_its_tasks_back(broker):
    # Among the last: it replaces the worker.
    global WORKER
    results = [tasks().echo.delay(number) for number in range(300)]
    WORKER.kill()
    WORKER.wait()
    WORKER = start_worker(broker, "two", ["--pool=solo"])
    # Those that ran but were not acknowledged run again: each has a result, once or twice.
    equal([result.get(timeout=RESULT_SECONDS) for result in results], list(range(300)))


@case
def a_worker_ends_in_peace(broker):
    equal(stop_worker(WORKER), 0, "exit code")


def prepare(broker):
    global WORKER
    os.environ.update(CONFORMANCE_URL=broker.url(), CONFORMANCE_QUEUE=QUEUE)
    sys.path.insert(0, str(HERE))
    WORKER = start_worker(broker, "one", ["--pool=threads", "--concurrency=4"])
    equal(tasks().add.delay(1, 1).get(timeout=RESULT_SECONDS), 2)


def clean_up(broker):
    if WORKER and WORKER.poll() is None:
        stop_worker(WORKER)
    with tasks().app.connection_for_write() as connection:
        channel = connection.channel()
        for queue in (QUEUE, f"{QUEUE}-topic"):
            channel.queue_delete(queue)
            channel.exchange_delete(queue)
        for exchange in (f"{QUEUE}-control", f"{QUEUE}-control.pidbox", f"reply.{QUEUE}-control.pidbox", f"{QUEUE}-events"):
            channel.exchange_delete(exchange)
    for log in pathlib.Path(tempfile.gettempdir()).glob(f"{QUEUE}-*.log"):
        log.unlink()


if __name__ == "__main__":
    # One at a time: the last cases stop the worker.
    harness.main(prepare, jobs=1, clean_up=clean_up)
