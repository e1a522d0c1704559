//! What the broker says on standard output once clients can connect.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use crate::server::memory_limit::size_text;
use crate::server::placement::placement_text;

/// What the banner tells.
#[derive(Debug)]
pub struct Banner<'a> {
    /// Where the broker listens.
    pub address: SocketAddr,
    /// The core of each shard.
    pub cores: &'a [Option<usize>],
    /// Where what outlives the process is kept.
    pub data_path: &'a Path,
    /// Above how much memory publishers are paused, in octets.
    pub memory_limit_octets: u64,
    /// The process's number.
    pub pid: u32,
}

impl Banner<'_> {
    /// Writes it to standard output, all at once. A closed output is no reason not to serve.
    pub fn print(&self) {
        let mut text = String::new();
        write!(text, "{self}").expect("a string takes any text");
        let mut output = io::stdout().lock();
        let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    }
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lepus {} — AMQP 0-9-1 broker", env!("CARGO_PKG_VERSION"))?;
        // An IPv6 address is written in brackets by its own Display.
        writeln!(f, "  listening on amqp://{}", self.address)?;
        writeln!(f, "  shards       {}", placement_text(self.cores))?;
        writeln!(f, "  data         {}", self.data_path.display())?;
        writeln!(f, "  memory       publishers are paused above {}", size_text(self.memory_limit_octets))?;
        writeln!(f, "  stop         Ctrl-C or kill -TERM {}", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, cores: &[Option<usize>], expected: &str) {
        let address = address.parse().expect("address");
        let data_path = Path::new("/var/lib/lepus");
        let banner = Banner { address, cores, data_path, memory_limit_octets: 3 << 29, pid: 12345 };
        assert_eq!(banner.to_string(), expected.replace("VERSION", env!("CARGO_PKG_VERSION")));
    }

    /// Goal: the banner reads as documented; tests and scripts look for `listening on amqp://HOST:PORT`.
    /// Method: the whole text, for either family of addresses, pinned and not.
    #[test]
    fn banner_text() {
        check(
            "127.0.0.1:5672",
            &[Some(0), Some(1)],
            "lepus VERSION — AMQP 0-9-1 broker\n  listening on amqp://127.0.0.1:5672\n  shards       2, on cores 0, 1\n  \
             data         /var/lib/lepus\n  memory       publishers are paused above 1.5 GiB\n  stop         Ctrl-C or kill -TERM 12345\n",
        );
        check(
            "[::1]:40001",
            &[None],
            "lepus VERSION — AMQP 0-9-1 broker\n  listening on amqp://[::1]:40001\n  shards       1, not pinned to cores\n  \
             data         /var/lib/lepus\n  memory       publishers are paused above 1.5 GiB\n  stop         Ctrl-C or kill -TERM 12345\n",
        );
    }
}
