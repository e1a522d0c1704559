"""The tasks that the Celery suite's worker runs. Configured by CONFORMANCE_URL and CONFORMANCE_QUEUE."""

import os

import celery
import kombu

queue = os.environ["CONFORMANCE_QUEUE"]
app = celery.Celery("conformance", broker=os.environ["CONFORMANCE_URL"], backend="rpc://")
app.conf.update(
    task_default_queue=queue,
    task_queues=[
        kombu.Queue(queue, kombu.Exchange(queue, "direct"), routing_key=queue, queue_arguments={"x-max-priority": 10}),
        kombu.Queue(f"{queue}-topic", kombu.Exchange(f"{queue}-topic", "topic"), routing_key="work.#"),
    ],
    task_default_exchange=queue,
    task_default_routing_key=queue,
    event_queue_prefix=f"{queue}-event",
    control_exchange=f"{queue}-control",
    event_exchange=f"{queue}-events",
    task_acks_late=True,
    worker_prefetch_multiplier=8,
    broker_connection_retry_on_startup=True,
    broker_heartbeat=4,
    result_expires=120,
    worker_hijack_root_logger=False,
)


@app.task
def add(x, y):
    return x + y


@app.task(acks_late=False)
def early(x):
    return x


@app.task(bind=True, max_retries=5)
def succeeds_at_last(self, attempts):
    if self.request.retries < attempts:
        raise self.retry(countdown=0.01, exc=RuntimeError("not yet"))
    return self.request.retries


@app.task(bind=True, max_retries=1)
def never_succeeds(self):
    raise self.retry(countdown=0.01, exc=ValueError("never"))


@app.task
def fails():
    raise KeyError("on purpose")


@app.task(ignore_result=True)
def forgotten():
    return None


@app.task(bind=True)
def is_redelivered(self, _x):
    return bool(self.request.delivery_info.get("redelivered"))


@app.task
def echo(x):
    return x
