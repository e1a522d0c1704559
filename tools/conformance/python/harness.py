"""What every Python suite shares: the list of cases, their runner, and checks.

A suite is a module that registers cases with `@case` and ends with `main()`. The runner prints one line per case,
which `tools/conformance/run` counts:

    PLAN 3
    PASS name 0.012
    FAIL name 0.300 | why, on one line
    SKIP name | why

Details of a failure follow its line, indented. It knows nothing of any client library.
"""

import argparse
import collections
import itertools
import os
import re
import sys
import threading
import time
import traceback
import uuid

WAIT_SECONDS = 20.0
"""How long an awaited event may take before the case fails. Nothing waits that long when all is well."""

CASE_SECONDS_MAX = 60.0
"""A case that runs longer hangs: it fails with the place where it stands, and the others go on."""


class Broker:
    """Where the broker is, and what the runner promised about it."""

    def __init__(self, address, has_definitions):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.has_definitions = has_definitions
        self.is_rabbitmq_3 = False
        """Set by a suite that has seen the server properties. RabbitMQ 3.x differs from the 4.x that is the model."""

    def url(self, user="guest", password="guest", vhost="%2F"):
        return f"amqp://{user}:{password}@{self.host}:{self.port}/{vhost}"


class Skip(Exception):
    """Raised by a case that cannot say anything about this broker."""


_CASES = []
_RUN = f"conf-{uuid.uuid4().hex[:8]}"
_NUMBERS = itertools.count(1)


def case(function):
    """Registers a case. Its name is the function's, with the underscores as spaces."""
    _CASES.append((function.__name__.replace("_", " "), function))
    return function


def unique(kind="q"):
    """A name that no other case and no other run uses."""
    return f"{_RUN}-{kind}{next(_NUMBERS)}"


def check(condition, what="the condition does not hold"):
    if not condition:
        raise AssertionError(what)


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def one_of(actual, expected, what="value"):
    if actual not in expected:
        raise AssertionError(f"{what}: expected one of {expected!r}, got {actual!r}")


def matches(actual, pattern, what="text"):
    if not re.fullmatch(pattern, actual, re.DOTALL):
        raise AssertionError(f"{what}: expected to match {pattern!r}, got {actual!r}")


def text_is(actual, expected):
    """`expected` is the whole text, a compiled pattern for the whole text, or a tuple of what is allowed."""
    if isinstance(expected, tuple):
        one_of(actual, expected, "reply text")
    elif isinstance(expected, re.Pattern):
        matches(actual, expected.pattern, "reply text")
    else:
        equal(actual, expected, "reply text")


def eventually(probe, what, seconds=WAIT_SECONDS):
    """Waits until `probe()` is true and returns what it gave. For states that no event announces."""
    end = time.monotonic() + seconds
    pause = 0.002
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def run_one(name, function, broker):
    begun = time.monotonic()
    try:
        function(broker)
    except Skip as why:
        return f"SKIP {name} | {why}", ""
    except BaseException as error:  # noqa: BLE001 - a case may fail in any way
        seconds = time.monotonic() - begun
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        details = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return f"FAIL {name} {seconds:.3f} | {reason}", details
    return f"PASS {name} {time.monotonic() - begun:.3f}", ""


def main(prepare=None, jobs=4, clean_up=None):
    """Runs the cases that were asked for, `jobs` at a time, and exits non-zero where one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True, help="HOST:PORT")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--has-definitions", action="store_true", help="definitions.json is loaded")
    options = parser.parse_args()
    broker = Broker(options.broker, options.has_definitions)
    cases = [(name, function) for name, function in _CASES if options.case in name]
    print(f"PLAN {len(cases)}", flush=True)
    if prepare:
        try:
            prepare(broker)
        except BaseException:
            if clean_up:
                clean_up(broker)
            raise

    state = {"failures": 0, "unfinished": len(cases)}
    changed = threading.Condition()
    running = {}
    waiting = collections.deque(cases)

    def report(line, details):
        state["failures"] += line.startswith("FAIL")
        state["unfinished"] -= 1
        print(line, flush=True)
        for detail in details.splitlines():
            print(f"    {detail}", flush=True)
        changed.notify_all()

    def work():
        while True:
            with changed:
                if not waiting:
                    return
                name, function = waiting.popleft()
                running[name] = (threading.get_ident(), time.monotonic())
            line, details = run_one(name, function, broker)
            with changed:
                if running.pop(name, None) is None:
                    return  # given up on; another thread took this one's place
                report(line, details)

    def start_worker():
        threading.Thread(target=work, daemon=True).start()

    for _ in range(options.jobs):
        start_worker()
    with changed:
        while state["unfinished"]:
            changed.wait(timeout=1.0)
            for name, (thread, begun) in list(running.items()):
                if time.monotonic() - begun > CASE_SECONDS_MAX:
                    del running[name]
                    stack = "".join(traceback.format_stack(sys._current_frames()[thread]))
                    report(f"FAIL {name} {CASE_SECONDS_MAX:.3f} | hangs", stack)
                    start_worker()
    if clean_up:
        clean_up(broker)
    sys.stdout.flush()
    # A client library may have left threads behind; they must not keep the process.
    os._exit(1 if state["failures"] else 0)
