//! The built broker, started for a test. It is the binary that `LEPUS_BIN` names, or else the one beside `lepus-perf`, which is built
//! first.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// The built load generator.
pub const LEPUS_PERF: &str = env!("CARGO_BIN_EXE_lepus-perf");

/// The broker's binary.
fn broker_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("LEPUS_BIN") {
        return PathBuf::from(path);
    }
    let directory = Path::new(LEPUS_PERF).parent().expect("a binary is in a directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let arguments = ["build", "--quiet", "--package", "lepus", "--bin", "lepus", "--profile", profile];
    let built = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(built.expect("cargo runs").success(), "the broker does not build");
    directory.join("lepus")
}

/// A broker on a free port with a data directory of its own.
pub struct Broker {
    pub child: Child,
    pub uri: String,
    /// Removed with the broker.
    _data_dir: TempDir,
}

impl Broker {
    pub fn start() -> Self {
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        let mut child = Command::new(broker_binary())
            .args(["--port", "0", "--shards", "2", "--data-dir"])
            .arg(data_dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the broker starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let uri = lines
            .find_map(|line| line.expect("the banner is text").trim().strip_prefix("listening on ").map(str::to_owned));
        Self { child, uri: uri.expect("the banner tells the address"), _data_dir: data_dir }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
