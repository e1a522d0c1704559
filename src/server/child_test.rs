//! Runs a test in a process of its own, for what concerns a whole process: its limits, its signals, its end.

use std::env;
use std::process::{Command, ExitStatus};

/// How a child ends whose body has come to its end: not 0, which a child that finds no test of the name ends with.
const BODY_DONE: i32 = 42;

/// Set in the process that runs the body of a test.
const IN_CHILD: &str = "LEPUS_TEST_IN_CHILD";

/// Runs `body` in a child process that runs the test called `name` only, and waits for its end.
///
/// Returns how the child ended and what it wrote to its standard error. In the child itself it never returns.
pub fn end_of_child(name: &str, body: impl FnOnce()) -> (ExitStatus, String) {
    if env::var_os(IN_CHILD).is_some() {
        body();
        std::process::exit(BODY_DONE);
    }
    let output = Command::new(env::current_exe().expect("the test's own program"))
        .args(["--exact", name, "--nocapture"])
        .env(IN_CHILD, "1")
        .output()
        .expect("child process");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs `body` as [`end_of_child`] does and fails where it does not come to its end.
pub fn run_in_child(name: &str, body: impl FnOnce()) {
    let (status, stderr) = end_of_child(name, body);
    assert_eq!(status.code(), Some(BODY_DONE), "{status}: {stderr}");
}
