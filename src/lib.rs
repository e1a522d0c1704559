//! Lepus, an AMQP 0-9-1 message broker for Linux.

pub mod connection;
pub mod control;
pub mod definitions;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod protocol;
pub mod queue;
pub mod routing;
pub mod server;
pub mod shard;
#[cfg(test)]
mod tidy;
