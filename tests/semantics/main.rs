//! What AMQP 0-9-1 and RabbitMQ's extensions promise and client libraries hide: numbers, flags, order, texts.

#[path = "../support/mod.rs"]
mod support;

mod confirms;
mod delivery;
mod liveness;
mod order;
mod queues;
mod transactions;
