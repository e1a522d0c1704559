//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for, [`run::measure`] makes it and returns a [`result::Run`]. Inside,
//! `topology` declares it, a thread for each `producer` and `consumer` does it. A producer stamps each body with its number
//! and times (`stamp`); a consumer reads the stamp, checks the order (`sequence`) and records latencies.
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * A message that is lost, doubled or out of order makes the exit code non-zero.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

pub mod arrivals;
mod batch;
mod broker_process;
mod check;
mod client;
mod clock;
mod confirms;
mod engine;
pub mod interrupt;
pub mod machine;
pub mod options;
pub mod output_options;
mod process;
mod recorder;
pub mod result;
pub mod run;
mod sequence;
pub mod sizes;
mod stamp;
pub mod table;
mod topology;
mod trace;
pub mod uri;
