//! Tells the program which revision of the repository it is built from; results record it.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=LEPUS_REVISION");
    if std::env::var_os("LEPUS_REVISION").is_some() {
        return;
    }
    let described = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let Some(output) = described.ok().filter(|output| output.status.success()) else { return };
    println!("cargo::rustc-env=LEPUS_REVISION={}", String::from_utf8_lossy(&output.stdout).trim());
    // Each commit and each checkout adds a line. In a worktree it lies elsewhere.
    let log = Command::new("git").args(["rev-parse", "--git-path", "logs/HEAD"]).output();
    let Some(log) = log.ok().filter(|output| output.status.success()) else { return };
    let log = String::from_utf8_lossy(&log.stdout).trim().to_owned();
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
}
