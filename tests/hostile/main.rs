//! What hostile and broken peers get: AMQP's code and text or a closed socket, and nobody else notices.
//!
//! Every test ends with a canary: the broker still publishes and consumes in order.
#![allow(clippy::doc_markdown, reason = "RabbitMQ is a name, not code")]
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "../support/mod.rs"]
mod support;

mod channels;
mod content;
mod crowd;
mod flood;
mod frames;
mod handshake;
mod random_bytes;
mod tables;
mod vanishing;
