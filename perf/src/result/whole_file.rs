//! Files that are written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Writes a file under a temporary name beside it, then gives it its name; what was there before stays until then. `-` is
/// standard output; what is no ordinary file, such as a pipe, is written directly.
///
/// # Errors
/// A clause for the user: the directory is not there, the file may not be written, the disk is full.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<(), String> {
    let (path, directory) = match place(path)? {
        Place::Stdout => {
            let mut stdout = io::stdout().lock();
            return stdout.write_all(content).and_then(|()| stdout.flush()).map_err(|error| error.to_string());
        }
        Place::Device => {
            let mut file = OpenOptions::new().write(true).open(path).map_err(|error| error.to_string())?;
            return file.write_all(content).map_err(|error| error.to_string());
        }
        Place::File { path, directory } => (path, directory),
    };
    let Some(name) = path.file_name() else { return Err("is no name of a file".to_owned()) };
    let temporary = directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = write_new(&temporary, content).and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|error| {
        // It may not even have been made.
        let _ = fs::remove_file(&temporary);
        error.to_string()
    })
}

/// Where something can be written.
pub enum Place {
    /// To standard output.
    Stdout,
    /// To what is there and no ordinary file.
    Device,
    /// To a file, which is there or not.
    File {
        /// Its name, links followed.
        path: PathBuf,
        /// Where it is in.
        directory: PathBuf,
    },
}

/// Whether something can be written under a name, as far as that can be told before.
///
/// # Errors
/// Why it cannot be: a clause for the user.
pub fn place(path: &Path) -> Result<Place, String> {
    if path == Path::new("-") {
        return Ok(Place::Stdout);
    }
    // Through a link to the file itself, which keeps the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => return Err("is a directory".to_owned()),
        Ok(metadata) if metadata.is_file() => {
            // The temporary file would replace also what may not be written.
            if metadata.permissions().readonly() {
                return Err("is there already and may not be written".to_owned());
            }
            OpenOptions::new().write(true).open(&path).map_err(|error| error.to_string())?;
        }
        Ok(_) => return Ok(Place::Device),
        Err(_) => {}
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    if !directory.is_dir() {
        return Err(format!("there is no directory '{}'", directory.display()));
    }
    Ok(Place::File { path, directory })
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a file is replaced whole, and nothing else is left behind.
    #[test]
    fn files_are_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.json");
        for content in ["first", "2"] {
            write_whole(&path, content.as_bytes()).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), content);
        }
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        write_whole(&link, b"3").expect("written");
        assert_eq!(fs::read(&path).expect("there"), b"3");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 2);
    }

    /// Goal: what cannot be written is told, and stays as it was.
    #[test]
    fn refusals() {
        let directory = tempfile::tempdir().expect("a directory");
        let check = |name: &str, expected: &str| {
            let reason = write_whole(&directory.path().join(name), b"x").expect_err("refused");
            assert!(reason.contains(expected), "{reason}");
        };
        check("nowhere/a.json", "there is no directory");
        check("", "is a directory");
        let path = directory.path().join("kept");
        fs::write(&path, "kept").expect("written");
        let mut permissions = fs::metadata(&path).expect("there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).expect("set");
        check("kept", "may not be written");
        assert_eq!(fs::read(&path).expect("there"), b"kept");
        assert_eq!(fs::read_dir(directory.path()).expect("there").count(), 1);
    }
}
