//! `lepus-perf`, a load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
//!
//! The way of a run: [`options`] says what is asked for; [`run::measure`] makes it and returns a [`result::Run`]. It declares what
//! is needed (`topology`) and starts the threads of the `engine`, one executor on each core; each connection is a task there
//! (`engine::link`), with channels that publish (`engine::source`) or receive (`engine::sink`). [`arrivals`] says when a
//! message is due, `batch` has it encoded, `stamp` marks its body with its number, times and checksum; whoever receives it reads
//! the stamp, checks the order (`sequence`) and records latencies (`recorder`). Each second the threads send what they have
//! to the one that watches, `run`; in the end `check` brings together what was sent and what was received.
//!
//! Several runs: a [`campaign`] makes them one after the other, shows them in a [`view`] and collects them. [`run_command`],
//! [`sweep`] (whose search is [`search`]), [`versus`] and [`suite`] say which. [`final_table`] and [`rounds_table`] are what
//! stands on standard output in the end.
//!
//! Kept results: [`result`] reads and writes them, [`output_options`] says in which formats, [`column`] groups them for
//! [`compare`], [`plot`] and [`html`].
//!
//! * Latency under a rate is measured from when a message *should have been* sent: a broker that stalls cannot hide it.
//! * Nothing is allocated per message.
//! * Whether messages were lost, doubled, out of order or damaged is checked in every run.
#![allow(clippy::doc_markdown, reason = "RabbitMQ and LavinMQ are names, not code")]

pub mod arrivals;
pub mod backlog_trend;
mod batch;
mod broker_process;
pub mod campaign;
mod check;
mod client;
mod clock;
pub mod column;
pub mod command_line;
pub mod compare;
mod confirms;
mod engine;
pub mod exit;
pub mod export;
pub mod final_table;
pub mod html;
pub mod interrupt;
pub mod machine;
pub mod objective;
mod option_values;
pub mod options;
pub mod output_options;
pub mod plot;
mod process;
pub mod quantiles;
pub mod quantity;
pub mod random;
mod recorder;
pub mod result;
pub mod rounds_table;
pub mod run;
pub mod run_command;
pub mod search;
mod sequence;
pub mod sizes;
mod stamp;
pub mod suite;
pub mod sweep;
#[cfg(test)]
mod test_runs;
mod topology;
mod trace;
pub mod units;
pub mod uri;
pub mod versus;
pub mod view;
pub mod view_options;
mod whole_file;
