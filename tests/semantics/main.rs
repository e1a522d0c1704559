//! What AMQP 0-9-1 and RabbitMQ's extensions promise and client libraries hide: numbers, flags, order, texts.
#![allow(clippy::doc_markdown, reason = "RabbitMQ is a name, not code")]
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "../support/mod.rs"]
mod support;

mod confirms;
mod delivery;
mod limits;
mod liveness;
mod order;
mod queues;
mod transactions;
