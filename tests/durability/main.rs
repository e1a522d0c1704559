//! What was confirmed survives: kills, stops, full and failing disks, damage, on the real binary.
#![allow(clippy::doc_markdown, reason = "RabbitMQ is a name, not code")]
#![allow(clippy::large_stack_arrays, reason = "the stacks of tests have room")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod damage;
mod failing_disk;
mod kills;
mod kinds;
mod ledger;
mod long_queues;
mod site;
mod stops;
