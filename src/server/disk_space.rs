//! Watches how much room the file system of the data directory has, and tells the shards when it gets too little. A driver.

use crate::{
    server::memory_limit::{MemoryLimit, size_text},
    shard::mesh::Mailbox,
};
use std::{
    io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(200);

/// How much room is to stay free on the disk, in octets; none where nobody is to wait for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimit(u64);

impl DiskLimit {
    /// In octets.
    pub fn octets(self) -> u64 {
        self.0
    }
}

impl FromStr for DiskLimit {
    type Err = String;

    /// Reads `0`, `512MiB`, `4GB` or plain octets.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        match text.parse()? {
            MemoryLimit::Octets(octets) => Ok(Self(octets)),
            MemoryLimit::Percent(_) => Err(format!("'{text}' is a share; write a size, such as '512MiB', or 0")),
        }
    }
}

/// Room that is available to this user, in octets.
///
/// # Errors
/// What the system says.
pub fn available_octets(path: &Path) -> io::Result<u64> {
    let room = rustix::fs::statvfs(path)?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Starts to watch, until the process ends. Returns what tells whether there is less room than `limit_octets`.
///
/// # Errors
/// There is no thread for it.
pub(super) fn watch(path: PathBuf, limit_octets: u64, mailboxes: Vec<Mailbox>) -> io::Result<Arc<AtomicBool>> {
    let is_short = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_short);
    thread::Builder::new().name("disk-space".into()).spawn(move || {
        loop {
            look(&path, limit_octets, &told, &mailboxes);
            thread::sleep(INTERVAL);
        }
    })?;
    Ok(is_short)
}

fn look(path: &Path, limit_octets: u64, told: &AtomicBool, mailboxes: &[Mailbox]) {
    // Where it cannot be asked, nothing changes.
    let Ok(available) = available_octets(path) else { return };
    let was_short = told.load(Ordering::Relaxed);
    // A little more than the limit lets publishers go on, so that they do not stop and go all the time.
    let is_short = available < if was_short { limit_octets.saturating_add(limit_octets / 10) } else { limit_octets };
    if is_short == was_short {
        return;
    }
    told.store(is_short, Ordering::Relaxed);
    let (available, limit, path) = (size_text(available), size_text(limit_octets), path.display());
    if is_short {
        tracing::warn!(
            "the disk is nearly full: {available} are left at {path}, less than the limit of {limit}; publishers wait"
        );
    } else {
        tracing::info!("the disk has room again: {available} at {path}");
    }
    mailboxes.iter().for_each(Mailbox::poke);
}
