//! A data directory that outlives the brokers that use it.

use crate::support::broker::{BINARY, Broker, oracle};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long a broker may take to end in order.
pub const STOP_MAX: Duration = Duration::from_secs(20);

/// See the module's documentation.
pub struct Site {
    /// Removed with the site, where it is not somebody else's.
    own: Option<TempDir>,
    path: PathBuf,
}

impl Site {
    /// `None`, and the test has to end, where it is to use a broker that runs already.
    pub fn new() -> Option<Site> {
        let own = tempfile::tempdir().expect("a temporary directory");
        let mut site = Site::at(&own.path().join("data"))?;
        site.own = Some(own);
        Some(site)
    }

    /// As [`Site::new`], in a directory that the test cares for.
    pub fn at(path: &Path) -> Option<Site> {
        if oracle().is_some() {
            eprintln!("skipped: needs a data directory of its own");
            return None;
        }
        Some(Site { own: None, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn text(&self) -> &str {
        self.path.to_str().expect("temporary directories have plain names")
    }

    /// A broker that uses it, with two shards unless `flags` say otherwise.
    pub fn start(&self, flags: &[&str]) -> Broker {
        self.start_through(Command::new(BINARY), flags)
    }

    /// As [`Site::start`], through a command that ends in the broker.
    pub fn start_through(&self, command: Command, flags: &[&str]) -> Broker {
        let flags = [&["--data-dir", self.text(), "--log", "warn"], flags].concat();
        Broker::own_through(command, &flags).expect("the site is only there where the test has brokers of its own")
    }

    /// A broker is started and not waited for.
    pub fn spawn(&self, flags: &[&str]) -> std::process::Child {
        let mut command = Command::new(BINARY);
        command.args(["--data-dir", self.text(), "--log", "warn", "--port", "0"]).args(flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the broker's binary starts")
    }

    /// A broker that is not expected to start, to its end.
    pub fn try_start(&self) -> Output {
        let mut command = Command::new(BINARY);
        command.args(["--data-dir", self.text(), "--port", "0", "--shards", "2"]).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let start = std::time::Instant::now();
        while child.try_wait().expect("it is our child").is_none() {
            if start.elapsed() > STOP_MAX {
                let _ = child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().expect("it is our child")
    }

    /// The binary with these arguments and the directory behind them, not waited for.
    pub fn spawn_command(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg(&self.path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    }

    /// The binary with these arguments and the directory behind them, to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg(&self.path).stdin(Stdio::null());
        command.output().expect("the binary starts")
    }
}

impl Drop for Site {
    /// With `LEPUS_TEST_KEEP` set, what is left of a test that has failed stays for being looked at.
    fn drop(&mut self) {
        if std::thread::panicking()
            && std::env::var_os("LEPUS_TEST_KEEP").is_some()
            && let Some(own) = self.own.take()
        {
            eprintln!("kept: {}", own.keep().display());
        }
    }
}

/// Ends a broker in order.
#[track_caller]
pub fn stop(broker: Broker) {
    broker.signal(Signal::TERM);
    expect_stopped(broker);
}

/// A broker ends in order, which was told to.
#[track_caller]
pub fn expect_stopped(mut broker: Broker) {
    let status = broker.expect_exit(STOP_MAX);
    assert_eq!(status.code(), Some(0), "{status:?}: {}", broker.stderr());
}

/// Ends a broker at once.
pub fn kill(broker: Broker) {
    drop(broker);
}
