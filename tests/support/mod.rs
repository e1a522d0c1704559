//! What the integration tests share: the broker under test, an AMQP 0-9-1 codec of their own, and a raw client.
//!
//! The codec here is written by hand and uses nothing of the broker's: it is a second implementation, so that a
//! mistake in one of them shows. With `LEPUS_TEST_BROKER=host:port` the tests run against that broker instead of the
//! built binary (RabbitMQ serves as oracle); tests that need flags, a pid or signals of their own are skipped then.
#![allow(dead_code, reason = "every test binary uses a part of this module")]

pub mod broker;
pub mod canary;
pub mod methods;
pub mod octets;
pub mod random;
pub mod wire;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A name that no other test and no other run uses.
pub fn unique(name: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{count}", std::process::id())
}

/// Asks `condition` again and again until it holds; fails the test with `what` when it does not within `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Raises the soft limit of open files of this process (and of the brokers that it starts) to the hard limit, and
/// tells what it is then.
pub fn raise_open_files_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(65_536, |maximum| maximum.min(65_536));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
