//! What a panic does: one line, and the end of the whole process.
//!
//! A shard that is gone would leave its queues and connections hanging; an assertion that failed means that what is
//! in memory cannot be trusted. Ending cleanly is what clients can recover from.

use std::panic;

/// The exit code of a process that a panic has ended, as Rust has it.
const PANIC_EXIT_CODE: i32 = 101;

/// From now on the first panic of any thread is reported in one line and ends the process, in every build profile.
pub fn install() {
    panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        // In one line whatever the message is made of, so that a log keeps it together.
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("no message").replace('\n', " ");
        eprintln!(
            "lepus: this is a bug in Lepus, which ends now: {message} (thread {}, {location}, version {}).",
            thread.name().unwrap_or("unnamed"),
            env!("CARGO_PKG_VERSION"),
        );
        // Without destructors and exit handlers, which other threads may be in the middle of.
        signal_hook::low_level::exit(PANIC_EXIT_CODE);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::child_test::end_of_child;

    /// Goal: a panic of one thread ends the process with a code and one line that says where and that it is a bug.
    /// Method: in a process of its own, panic in a named thread and wait for it for ever.
    #[test]
    fn panic_ends_the_process() {
        let (status, stderr) = end_of_child("server::panic_hook::tests::panic_ends_the_process", || {
            install();
            let thread = std::thread::Builder::new().name("shard-7".into()).spawn(|| panic!("first\nsecond"));
            let _ = thread.expect("thread").join();
        });
        assert_eq!(status.code(), Some(PANIC_EXIT_CODE), "{stderr}");
        let line = stderr.lines().find(|line| line.starts_with("lepus:")).expect("the line");
        assert!(line.contains("bug in Lepus") && line.contains("first second (thread shard-7, src/server/"), "{line}");
        assert!(!stderr.contains("stack backtrace"), "{stderr}");
    }
}
