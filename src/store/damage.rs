//! What can be wrong with a disk and with what is on it, in sentences that name file and offset.

use std::fmt;
use std::io;
use std::path::Path;

/// Something on the disk is not what was written there, or is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, below the data directory.
    pub file: String,
    /// Where in it, in octets.
    pub offset: u64,
    /// What is wrong.
    pub what: DamageKind,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A batch of the journal is not sound, though a later one is.
    Batch {
        /// Its number.
        sequence: u64,
        /// The number of the next sound one.
        sound: u64,
    },
    /// A batch has the right checksum, but what it says cannot be.
    Record,
    /// A file that must be there is not.
    Missing,
    /// A file is shorter than it was; offset is what it has.
    Truncated {
        /// What it must have, in octets.
        octets: u64,
    },
    /// A journal segment is longer than it may be.
    TooLong {
        /// What it must have, in octets.
        octets: u64,
    },
    /// An extent of a queue segment file is not sound.
    Extent,
}

impl fmt::Display for Damage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Damage { file, offset, what } = self;
        match what {
            DamageKind::Batch { sequence, sound } => write!(
                to,
                "{file} is damaged at offset {offset}: batch {sequence} is not as it was written, though batch {sound} \
                 behind it is"
            ),
            DamageKind::Record => write!(to, "{file} is damaged at offset {offset}: a record there cannot be read"),
            DamageKind::Missing => write!(to, "{file} is missing"),
            DamageKind::Truncated { octets } => {
                write!(to, "{file} is truncated: it ends at offset {offset} and must have {octets} octets")
            }
            DamageKind::TooLong { octets } => {
                write!(to, "{file} has {offset} octets and must have {octets}")
            }
            DamageKind::Extent => {
                write!(to, "{file} is damaged at offset {offset}: the messages there are not as they were written")
            }
        }
    }
}

/// Why the store cannot go on.
#[derive(Debug)]
pub enum StoreError {
    /// An operation on a file failed.
    Io {
        /// The file, with the data directory.
        file: String,
        /// What was tried, as a verb: "write", "sync".
        operation: &'static str,
        /// Where in it, in octets, if that says something.
        offset: Option<u64>,
        /// What the operating system said.
        error: io::Error,
    },
    /// What is on the disk is not what was written.
    Damage(Damage),
}

impl fmt::Display for StoreError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Io { file, operation, offset: Some(offset), error } => {
                write!(to, "cannot {operation} {file} at offset {offset}: {error}")
            }
            StoreError::Io { file, operation, offset: None, error } => write!(to, "cannot {operation} {file}: {error}"),
            StoreError::Damage(damage) => write!(to, "{damage}"),
        }
    }
}

/// What can be done about damage in a data directory, as a part of a sentence.
pub fn remedy(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "'lepus recover {directory}' tells all that is damaged there, 'lepus recover --salvage {directory}' keeps what can be \
         kept"
    )
}

impl std::error::Error for StoreError {}

impl From<Damage> for StoreError {
    fn from(damage: Damage) -> StoreError {
        StoreError::Damage(damage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: DamageKind, parts: &[&str]) {
        let damage = Damage { file: String::from("journal/x.journal"), offset: 8192, what };
        let text = StoreError::from(damage).to_string();
        for part in parts.iter().chain(&["journal/x.journal"]) {
            assert!(text.contains(part), "{text}");
        }
    }

    /// Goal: each damage is told with its place. Method: look for file and numbers.
    #[test]
    fn damage_is_told_with_its_place() {
        check(DamageKind::Batch { sequence: 7, sound: 9 }, &["offset 8192", "batch 7", "batch 9"]);
        check(DamageKind::Record, &["offset 8192"]);
        check(DamageKind::Missing, &["missing"]);
        check(DamageKind::Truncated { octets: 65_536 }, &["8192", "65536"]);
        check(DamageKind::TooLong { octets: 4096 }, &["8192", "4096"]);
        check(DamageKind::Extent, &["offset 8192"]);
    }

    /// Goal: so is what the operating system said. Method: with an offset and without.
    #[test]
    fn errors_are_told_with_their_file() {
        let error = |offset| StoreError::Io {
            file: String::from("/data/lock"),
            operation: "write",
            offset,
            error: io::ErrorKind::StorageFull.into(),
        };
        assert_eq!(error(Some(5)).to_string(), "cannot write /data/lock at offset 5: no storage space");
        assert_eq!(error(None).to_string(), "cannot write /data/lock: no storage space");
    }
}
