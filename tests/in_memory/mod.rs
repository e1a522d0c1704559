//! A broker in memory: shards and the control plane on one thread, without executor, sockets or clock.
//!
//! [`broker`] does what the drivers do; [`peer`] reads what the broker sends, and holds it to the protocol; [`tape`] makes
//! frames of arbitrary octets; [`session`] plays whole connections and states what must hold of them.
//!
//! Shared by tests, fuzz targets and benchmarks, none of which uses all of it.

#![allow(dead_code, reason = "each user needs a part")]

pub mod broker;
pub mod peer;
pub mod session;
pub mod tape;
