//! Lepus, an AMQP 0-9-1 message broker for Linux.

pub mod definitions;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod protocol;
pub mod routing;
