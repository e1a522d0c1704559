//! The page cache of this machine.

use std::{fs, io};

/// What drops it.
const DROP: &str = "/proc/sys/vm/drop_caches";

/// Writes back all that is to be written, and drops what need not be kept.
///
/// # Errors
/// Where this process may not; then what was to be written is written all the same.
pub fn drop_page_cache() -> io::Result<()> {
    rustix::fs::sync();
    fs::write(DROP, "1\n")
}
