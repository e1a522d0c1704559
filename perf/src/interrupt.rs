//! Ctrl-C and SIGTERM: the first ends what is under way with its report, the second the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on signals are heard. Further calls change nothing.
///
/// # Errors
/// Where the system does not take the handlers.
pub fn listen() -> io::Result<()> {
    let requested = Arc::new(AtomicBool::new(false));
    if REQUESTED.set(Arc::clone(&requested)).is_err() {
        return Ok(());
    }
    for signal in [SIGINT, SIGTERM] {
        // In this order: what the first signal sets lets the second one end the process.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&requested))?;
        flag::register(signal, Arc::clone(&requested))?;
    }
    Ok(())
}

/// The user has asked for the end; further runs are not to begin. `false` while nobody listens.
pub fn is_requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}
