//! The signals that end the broker (a driver): the first asks it to, the second insists.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// How long shards may take to say goodbye to their clients, from the first signal on.
pub const SHUTDOWN_MOST: Duration = Duration::from_secs(4);

/// What a process reports that a signal has ended, as shells count: 128 and the signal's number.
const SIGNAL_EXIT_CODE: i32 = 128;

/// Catches SIGTERM and SIGINT from its making on.
#[derive(Debug)]
pub struct Shutdown {
    signals: Signals,
}

impl Shutdown {
    /// Catches the signals. From now on the second one ends the process at once, with 130 (SIGINT) or 143 (SIGTERM),
    /// whatever its threads are doing.
    ///
    /// # Errors
    /// Where the kernel refuses a handler or a descriptor.
    pub fn catch() -> io::Result<Shutdown> {
        let was_asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // Handlers run in this order: the first signal finds the flag down and only raises it.
            flag::register_conditional_shutdown(signal, SIGNAL_EXIT_CODE + signal, Arc::clone(&was_asked))?;
            flag::register(signal, Arc::clone(&was_asked))?;
        }
        Ok(Shutdown { signals: Signals::new([SIGTERM, SIGINT])? })
    }

    /// Blocks until the first signal and returns its name.
    pub fn wait(&mut self) -> &'static str {
        match self.signals.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::server::child_test::{end_of_child, run_in_child};

    /// Goal: the first signal is reported by name and ends nothing. Method: a process of its own signals itself.
    #[test]
    fn first_signal_is_reported() {
        run_in_child("server::shutdown::tests::first_signal_is_reported", || {
            let mut shutdown = Shutdown::catch().expect("handlers");
            kill_process(getpid(), Signal::INT).expect("signal");
            assert_eq!(shutdown.wait(), "SIGINT");
        });
    }

    /// Goal: the second signal ends the process at once with the shell's code for it.
    /// Method: a process of its own signals itself twice, the second time with the other signal, and else fails.
    #[test]
    fn second_signal_ends_the_process() {
        let (status, stderr) = end_of_child("server::shutdown::tests::second_signal_ends_the_process", || {
            let mut shutdown = Shutdown::catch().expect("handlers");
            kill_process(getpid(), Signal::INT).expect("signal");
            shutdown.wait();
            kill_process(getpid(), Signal::TERM).expect("signal");
            loop {
                std::thread::park();
            }
        });
        assert_eq!(status.code(), Some(143), "{stderr}");
    }
}
