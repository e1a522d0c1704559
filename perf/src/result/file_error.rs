//! What is wrong with a file that was to be read: which file, where in it, and why.

use std::fmt;
use std::path::{Path, PathBuf};

/// A file that cannot be read, or is not what it should be.
#[derive(Debug)]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// From 1; `None` where it is about the whole.
    pub line: Option<usize>,
    /// A clause for the user.
    pub reason: String,
}

impl FileError {
    /// About the whole file.
    pub fn whole(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, reason: reason.into() }
    }

    /// About one line, counted from 1.
    pub fn at(path: &Path, line: usize, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), reason: reason.into() }
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for FileError {}
