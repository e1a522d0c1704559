//! The broker under test: the built binary as a process of its own, or a running one that the environment names.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long the broker may take to print its banner.
const START_MAX: Duration = Duration::from_secs(30);

pub const BINARY: &str = env!("CARGO_BIN_EXE_lepus");

pub struct Broker {
    pub address: SocketAddr,
    process: Option<Process>,
}

struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    /// Removed with the broker, unless a flag names another.
    _data_dir: TempDir,
}

/// The broker that the environment names, if it does.
pub fn oracle() -> Option<SocketAddr> {
    let named = std::env::var("LEPUS_TEST_BROKER").ok()?;
    Some(named.to_socket_addrs().expect("LEPUS_TEST_BROKER is host:port").next().expect("it has an address"))
}

impl Broker {
    /// A broker on a free port with a data directory of its own, with two shards unless `flags` say otherwise. The running one where there is one:
    /// then `flags` are ignored, so give only those that the test can do without.
    pub fn start(flags: &[&str]) -> Broker {
        match oracle() {
            Some(address) => Broker { address, process: None },
            None => Broker::run(Command::new(BINARY), flags),
        }
    }

    /// A broker of the test's own. `None`, and the test has to end, where the running one is to be used.
    pub fn own(flags: &[&str]) -> Option<Broker> {
        Broker::own_through(Command::new(BINARY), flags)
    }

    /// As [`Broker::own`], through a command that ends in the broker.
    pub fn own_through(command: Command, flags: &[&str]) -> Option<Broker> {
        if oracle().is_some() {
            eprintln!("skipped: needs a broker of its own");
            return None;
        }
        Some(Broker::run(command, flags))
    }

    fn run(mut command: Command, flags: &[&str]) -> Broker {
        if !flags.iter().any(|flag| flag.starts_with("--port")) {
            command.args(["--port", "0"]);
        }
        if !flags.iter().any(|flag| flag.starts_with("--shards") || flag.starts_with("--cores")) {
            command.args(["--shards", "2"]);
        }
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        command.env("LEPUS_DATA_DIR", data_dir.path());
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the broker's binary starts");
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut pipe = child.stderr.take().expect("stderr is piped");
        let collected = Arc::clone(&stderr);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                collected.lock().expect("no panic under this lock").push_str(&String::from_utf8_lossy(&chunk[..count]));
            }
        });
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut process = Process { child, stderr, _data_dir: data_dir };
        let Some(address) = read_banner(stdout) else {
            let _ = process.child.kill();
            let status = process.child.wait();
            panic!("no banner; {status:?}; stderr: {}", process.stderr.lock().expect("no panic under this lock"));
        };
        Broker { address, process: Some(process) }
    }

    /// The broker is not ours: it is not to be signalled, measured or overfilled.
    pub fn is_oracle(&self) -> bool {
        self.process.is_none()
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("asked only where the broker is the test's own")
    }

    /// Resident memory in octets.
    pub fn resident_octets(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process().child.id()));
        let status = status.expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("the broker has memory");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
        kib * 1024
    }

    /// Processor time used so far, in clock ticks (100 a second).
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process().child.id()));
        let stat = stat.expect("the broker runs");
        let after_name = stat.rsplit_once(") ").expect("the name is in brackets").1;
        // utime and stime are fields 14 and 15; the state, field 3, is the first here.
        after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process().child.id()
    }

    pub fn open_files(&self) -> usize {
        let listed = std::fs::read_dir(format!("/proc/{}/fd", self.process().child.id()));
        listed.expect("the broker runs").count()
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process().child.id()).expect("pids are small");
        kill_process(Pid::from_raw(id).expect("not zero"), signal).expect("the broker runs");
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn expect_exit(&mut self, limit: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("asked only where the broker is the test's own");
        let start = Instant::now();
        loop {
            if let Some(status) = process.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(start.elapsed() < limit, "the broker still runs after {limit:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn stderr(&self) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, |process| process.stderr.lock().expect("no panic under this lock").clone())
    }

    /// The process is there and has not complained of a panic.
    #[track_caller]
    pub fn expect_running(&mut self) {
        if let Some(process) = &mut self.process {
            let status = process.child.try_wait().expect("it is our child");
            assert!(status.is_none(), "the broker ended: {status:?}");
        }
        assert!(!self.stderr().contains("panicked"), "the broker panicked");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.child.kill();
            let _ = process.child.wait();
            if thread::panicking() {
                eprintln!("--- the broker's stderr\n{}", self.stderr());
            }
        }
    }
}

/// The address out of the banner; goes on reading what follows, so that the broker never blocks on a full pipe.
fn read_banner(stdout: ChildStdout) -> Option<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + START_MAX;
    loop {
        let line = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        if let Some((_, rest)) = line.split_once("listening on amqp://") {
            let end = rest.find(|c: char| c.is_whitespace() || c == ',' || c == '/').unwrap_or(rest.len());
            return Some(rest[..end].parse().expect("the banner tells host:port"));
        }
    }
}
