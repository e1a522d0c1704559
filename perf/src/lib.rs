//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for; [`run::measure`] makes it and returns a [`result::Run`]. It declares what
//! is needed (`engine::topology`) and starts the threads of the `engine`, one executor on each core; each connection is a task there
//! (`engine::link`), with channels that publish (`engine::source`) or receive (`engine::sink`). [`options::arrivals`] says when a
//! message is due, `engine::batch` has it encoded, `engine::stamp` marks its body with its number, times and checksum; whoever receives it reads
//! the stamp, checks the order (`engine::sequence`) and records latencies (`engine::recorder`). Each second the threads send what they have
//! to the one that watches, `run`; in the end `engine::check` brings together what was sent and what was received.
//!
//! Several runs: a [`campaign`] makes them one after the other, shows them in a [`view`] and collects them. [`run_command`],
//! [`sweep`] (whose search is [`sweep::search`]), [`versus`] and [`suite`] say which. [`final_table`] and [`rounds_table`] are what
//! stands on standard output in the end.
//!
//! Kept results: [`result`] reads and writes them, [`output_options`] says in which formats, [`compare::column`] groups them for
//! [`compare`], [`plot`] and [`html`].
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * Whether messages were lost, doubled, out of order or damaged is checked in every run.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

pub mod campaign;
pub mod command_line;
pub mod compare;
mod engine;
pub mod exit;
pub mod export;
pub mod final_table;
pub mod html;
pub mod interrupt;
pub mod machine;
pub mod options;
pub mod output_options;
pub mod plot;
pub mod random;
pub mod result;
pub mod rounds_table;
pub mod run;
pub mod run_command;
pub mod suite;
pub mod sweep;
#[cfg(test)]
mod test_runs;
pub mod units;
pub mod versus;
pub mod view;
