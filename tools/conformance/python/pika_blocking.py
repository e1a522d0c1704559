"""The suite of pika's blocking adapter, the fullest of all. See the modules for its cases."""

import logging

import pika

import harness
import pika_connection  # noqa: F401 - registers its cases
import pika_declare  # noqa: F401
import pika_delivery  # noqa: F401
import pika_extensions  # noqa: F401
import pika_routing  # noqa: F401
import pika_settling  # noqa: F401
from pika_support import parameters


def prepare(broker):
    logging.disable(logging.CRITICAL)  # pika logs what the cases provoke
    connection = pika.BlockingConnection(parameters(broker))
    properties = connection._impl.server_properties
    broker.is_rabbitmq_3 = properties.get("product") == "RabbitMQ" and properties.get("version", "").startswith("3.")
    connection.close()


if __name__ == "__main__":
    harness.main(prepare)
