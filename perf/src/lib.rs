//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for; [`run::measure`] makes it and returns a [`result::Run`]. It declares what
//! is needed (`topology`) and starts the threads of the `engine`, one executor on each core; each connection is a task there
//! (`engine::link`), with channels that publish (`engine::source`) or receive (`engine::sink`). [`arrivals`] says when a
//! message is due, `batch` has it encoded, `stamp` marks its body with its number, times and checksum; whoever receives it reads
//! the stamp, checks the order (`sequence`) and records latencies (`recorder`). Each second the threads send what they have
//! to the one that watches, `run`; in the end `check` brings together what was sent and what was received.
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * Whether messages were lost, doubled, out of order or damaged is checked in every run.
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
mod option_values;
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
