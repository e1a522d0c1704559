//! The directory that holds what outlives the process: where it is, that it is ours, and ours alone.
//!
//! | Entry | |
//! | --- | --- |
//! | `lock` | locked (`flock`) by the broker that uses the directory; holds its process id |
//! | `format` | `lepus 2`: the version of all that lies here |
//! | `reserve` | room for a start on a full disk |
//! | `definitions.redb` | what exists ([`database`](crate::control::database)) |

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of what lies in the directory.
pub(super) const FORMAT: u32 = 2;
const FORMAT_NAME: &str = "lepus";
const FORMAT_FILE: &str = "format";
/// The format file while it is being written.
const FORMAT_FILE_NEW: &str = "format.new";
const LOCK_FILE: &str = "lock";
/// What it takes up is given to the database at start, should there be no other room.
const RESERVE_FILE: &str = "reserve";
const RESERVE_OCTETS: usize = 1 << 20;
/// The file of the database of definitions.
const DEFINITIONS_FILE: &str = "definitions.redb";
/// Directories that are filled after the database was made, and mean nothing without it.
const BUILT_UPON: [&str; 2] = ["journal", "queues"];
/// What a new directory may hold all the same: what a start left that was cut short, and what a new file system has.
const NOTHING_YET: [&str; 3] = [LOCK_FILE, FORMAT_FILE_NEW, "lost+found"];
/// Where a service of root keeps what it has.
const SERVICE_PATH: &str = "/var/lib/lepus";

/// The data directory, which no other broker can open while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock goes with it.
    _lock: Option<File>,
}

/// Why a data directory cannot be used. `Display` is a sentence that names the remedy.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum DataDirError {
    /// None was named, and there is no place that suggests itself.
    NoPlace,
    /// Another broker uses it.
    InUse { path: PathBuf, pid: Option<u32> },
    /// It holds something else.
    Foreign { path: PathBuf, entry: OsString },
    /// It was written in another format.
    Format { path: PathBuf, found: String },
    /// Its database is not there, though what builds upon it is.
    NoDatabase { path: PathBuf, built_upon: &'static str },
    /// There is no such directory, or no broker has made it.
    Absent { path: PathBuf },
    /// The system refuses.
    Io { path: PathBuf, action: &'static str, source: io::Error },
}

impl fmt::Display for DataDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace => f.write_str(
                "there is no place for the data directory, as neither HOME nor XDG_DATA_HOME is set; name one with \
                 --data-dir.",
            ),
            Self::InUse { path, pid } => {
                write!(f, "the data directory {} is used by another broker", path.display())?;
                if let Some(pid) = pid {
                    write!(f, ", process {pid}")?;
                }
                f.write_str("; stop that one or name another directory with --data-dir.")
            }
            Self::Foreign { path, entry } => write!(
                f,
                "{} holds something else than a broker's data ({}); name an empty or new directory with --data-dir.",
                path.display(),
                entry.display()
            ),
            Self::Format { path, found } => write!(
                f,
                "the data directory {} has the format '{found}', this version of lepus knows '{FORMAT_NAME} {FORMAT}' only; \
                 start the version that wrote it or name another directory with --data-dir.",
                path.display()
            ),
            Self::NoDatabase { path, built_upon } => write!(
                f,
                "{DEFINITIONS_FILE} is missing in the data directory {}, though there are messages in {built_upon}/: without it \
                 nobody knows which queues they belong to; bring it back, or name another directory with --data-dir.",
                path.display()
            ),
            Self::Absent { path } => write!(
                f,
                "{} is no data directory of a broker; name the one that lepus was given with --data-dir.",
                path.display()
            ),
            Self::Io { path, action, source } => write!(
                f,
                "cannot {action} {} ({source}); give this user access or name another directory with --data-dir.",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DataDirError {}

impl DataDir {
    /// Opens the directory for this process alone. It is made where it is not there, for this user alone.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        let path = &std::path::absolute(path).map_err(io_error(path, "find"))?;
        create(path)?;
        let is_new = check_entries(path)?;
        let lock = lock(path)?;
        if is_new {
            write_format(path)?;
        } else {
            check_format(path)?;
        }
        let data_dir = DataDir { path: path.clone(), _lock: Some(lock) };
        data_dir.check_database()?;
        Ok(data_dir)
    }

    /// Opens a directory that a broker has made, and that none uses now, for looking at it: nothing in it is changed.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    pub fn open_existing(path: &Path) -> Result<DataDir, DataDirError> {
        let path = &std::path::absolute(path).map_err(io_error(path, "find"))?;
        if !path.join(FORMAT_FILE).exists() {
            return Err(DataDirError::Absent { path: path.clone() });
        }
        let file_path = path.join(LOCK_FILE);
        let lock = match File::open(&file_path) {
            Ok(mut file) => {
                try_lock(path, &mut file)?;
                Some(file)
            }
            // Every broker makes one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error(&file_path, "lock the data directory with")(error)),
        };
        check_format(path)?;
        let data_dir = DataDir { path: path.clone(), _lock: lock };
        data_dir.check_database()?;
        Ok(data_dir)
    }

    /// The absolute path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the database of definitions.
    pub fn definitions_file(&self) -> PathBuf {
        self.path.join(DEFINITIONS_FILE)
    }

    /// Gives free what was kept for the start.
    pub fn release_reserve(&self) {
        // Where it is not there, or cannot be removed, what follows has to do without.
        let _ = fs::remove_file(self.path.join(RESERVE_FILE));
    }

    /// Keeps some room for the next start, if there is any.
    pub fn keep_reserve(&self) {
        let path = self.path.join(RESERVE_FILE);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        if file.and_then(|mut file| file.write_all(&vec![0; RESERVE_OCTETS])).is_err() {
            self.release_reserve();
        }
    }

    /// Numbers of epochs and queues are in the database. Without it they would be given again, and messages of other queues
    /// be found under them.
    fn check_database(&self) -> Result<(), DataDirError> {
        if fs::metadata(self.definitions_file()).is_ok_and(|file| file.len() > 0) {
            return Ok(());
        }
        let is_filled =
            |name: &&&str| fs::read_dir(self.path.join(name)).is_ok_and(|mut entries| entries.next().is_some());
        match BUILT_UPON.iter().find(is_filled) {
            Some(built_upon) => Err(DataDirError::NoDatabase { path: self.path.clone(), built_upon }),
            None => Ok(()),
        }
    }
}

/// Where the data lies if nobody says otherwise: in what systemd has made for the service, else in `/var/lib/lepus` for root,
/// else where the user's programs keep their data. `variable` looks into the environment.
///
/// # Errors
/// Where none of these is known.
///
/// Source: XDG Base Directory Specification 0.8; systemd.exec(5), `STATE_DIRECTORY`.
pub fn default_path(is_root: bool, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, DataDirError> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(list) = variable("STATE_DIRECTORY") {
        // Several are separated by colons.
        let first = list.to_string_lossy().split(':').next().map(PathBuf::from);
        if let Some(first) = first.filter(|path| path.is_absolute()) {
            return Ok(first);
        }
    }
    if is_root {
        return Ok(SERVICE_PATH.into());
    }
    let data_home = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data_home.map(|path| path.join("lepus")).ok_or(DataDirError::NoPlace)
}

fn io_error(path: &Path, action: &'static str) -> impl Fn(io::Error) -> DataDirError {
    move |source| DataDirError::Io { path: path.to_owned(), action, source }
}

/// Makes the directory and those above it that are missing, so that they are still there after a power cut.
fn create(path: &Path) -> Result<(), DataDirError> {
    let missing = path.ancestors().take_while(|directory| !directory.exists()).count();
    if missing == 0 {
        return Ok(());
    }
    let fail = io_error(path, "make the data directory");
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(&fail)?;
    path.ancestors().skip(1).take(missing).try_for_each(sync_directory).map_err(fail)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether the directory is new, and then whether it holds nothing of somebody else's.
fn check_entries(path: &Path) -> Result<bool, DataDirError> {
    let mut foreign = None;
    for entry in fs::read_dir(path).map_err(io_error(path, "read the data directory"))? {
        let name = entry.map_err(io_error(path, "read the data directory"))?.file_name();
        if name == FORMAT_FILE {
            return Ok(false);
        }
        if !NOTHING_YET.iter().any(|known| name == *known) {
            foreign = Some(name);
        }
    }
    match foreign {
        Some(entry) => Err(DataDirError::Foreign { path: path.to_owned(), entry }),
        None => Ok(true),
    }
}

/// Locks the directory for as long as the file is open, and writes the process's id into it.
fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join(LOCK_FILE);
    let fail = io_error(&file_path, "lock the data directory with");
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&file_path).map_err(&fail)?;
    try_lock(path, &mut file)?;
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(fail)?;
    Ok(file)
}

fn try_lock(path: &Path, file: &mut File) -> Result<(), DataDirError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            Err(DataDirError::InUse { path: path.to_owned(), pid })
        }
        Err(TryLockError::Error(error)) => Err(io_error(&path.join(LOCK_FILE), "lock the data directory with")(error)),
    }
}

/// Whole or not at all, whatever happens meanwhile.
fn write_format(path: &Path) -> Result<(), DataDirError> {
    let (new, file) = (path.join(FORMAT_FILE_NEW), path.join(FORMAT_FILE));
    let write = || {
        let mut options = OpenOptions::new();
        let mut octets = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        octets.write_all(format!("{FORMAT_NAME} {FORMAT}\n").as_bytes())?;
        octets.sync_all()?;
        fs::rename(&new, &file)?;
        sync_directory(path)
    };
    write().map_err(io_error(&file, "write"))
}

fn check_format(path: &Path) -> Result<(), DataDirError> {
    let file = path.join(FORMAT_FILE);
    let octets = fs::read(&file).map_err(io_error(&file, "read"))?;
    let text = String::from_utf8_lossy(&octets);
    if text == format!("{FORMAT_NAME} {FORMAT}\n") {
        return Ok(());
    }
    let first_line = text.lines().next().unwrap_or_default();
    let found = first_line.chars().filter(|c| !c.is_control()).take(40).collect();
    Err(DataDirError::Format { path: path.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn check_refused(path: &Path, parts: &[&str]) {
        let sentence = DataDir::open(path).expect_err("refused").to_string();
        assert!(sentence.ends_with('.') && !sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
        assert!(sentence.contains("--data-dir"), "{sentence}");
        for part in parts {
            assert!(sentence.contains(part), "'{part}' is missing: {sentence}");
        }
    }

    /// Goal: a new directory is made with its parents, for this user alone, and is found again.
    /// Method: open it twice, look at what is there; an empty one that somebody else has made serves as well.
    #[test]
    fn directory_is_made_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        for _ in 0..2 {
            let data_dir = DataDir::open(&path).unwrap();
            assert_eq!(data_dir.path(), path);
            assert_eq!(fs::read_to_string(path.join("format")).unwrap(), "lepus 2\n");
            assert_eq!(fs::read_to_string(path.join("lock")).unwrap(), format!("{}\n", std::process::id()));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
            assert!(!path.join("format.new").exists());
        }
        let mounted = tempfile::tempdir().unwrap();
        fs::create_dir(mounted.path().join("lost+found")).unwrap();
        fs::write(mounted.path().join("format.new"), "lep").unwrap();
        DataDir::open(mounted.path()).unwrap();
    }

    /// Goal: one broker at a time has it, and who comes second is told who the first is.
    /// Method: open it twice at the same time, then once more.
    #[test]
    fn directory_has_one_broker() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDir::open(directory.path()).unwrap();
        let pid = format!("process {};", std::process::id());
        check_refused(directory.path(), &[directory.path().to_str().unwrap(), &pid]);
        drop(first);
        DataDir::open(directory.path()).unwrap();
    }

    /// Goal: what is not ours is left alone, and said.
    /// Method: somebody's file, formats that are not known, a file in the way, a directory that lost its database.
    #[test]
    fn what_is_not_ours_is_refused() {
        let foreign = tempfile::tempdir().unwrap();
        fs::write(foreign.path().join("letter.txt"), "dear").unwrap();
        check_refused(foreign.path(), &["letter.txt"]);
        assert!(!foreign.path().join("lock").exists());
        check_refused(&foreign.path().join("letter.txt"), &["letter.txt"]);
        check_refused(&foreign.path().join("letter.txt/below"), &["letter.txt"]);
        for (format, shown) in [("lepus 1\n", "'lepus 1'"), ("lepus 2", "'lepus 2'"), ("", "''"), ("x\x1b\ny", "'x'")] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("format"), format).unwrap();
            check_refused(directory.path(), &[shown, "'lepus 2' only"]);
        }
        let lost = tempfile::tempdir().unwrap();
        drop(DataDir::open(lost.path()).unwrap());
        fs::create_dir(lost.path().join("journal")).unwrap();
        drop(DataDir::open(lost.path()).unwrap());
        fs::write(lost.path().join("journal/1"), "").unwrap();
        check_refused(lost.path(), &["definitions.redb", "journal/"]);
        fs::write(lost.path().join("definitions.redb"), "").unwrap();
        check_refused(lost.path(), &["definitions.redb", "journal/"]);
    }

    /// Goal: the default is where each kind of user expects it. Method: environments, with what comes of them.
    #[test]
    fn default_is_where_it_is_expected() {
        fn check(is_root: bool, variables: &[(&str, &str)], expected: Option<&str>) {
            let variable = |name: &str| variables.iter().find(|it| it.0 == name).map(|it| it.1.into());
            let found = default_path(is_root, variable).ok();
            assert_eq!(found, expected.map(PathBuf::from), "{is_root} {variables:?}");
        }
        check(true, &[("HOME", "/root"), ("XDG_DATA_HOME", "/x")], Some("/var/lib/lepus"));
        check(false, &[("HOME", "/home/a"), ("XDG_DATA_HOME", "/x")], Some("/x/lepus"));
        check(false, &[("HOME", "/home/a")], Some("/home/a/.local/share/lepus"));
        check(false, &[("HOME", "/home/a"), ("XDG_DATA_HOME", "")], Some("/home/a/.local/share/lepus"));
        check(false, &[("HOME", "/home/a"), ("XDG_DATA_HOME", "x")], Some("/home/a/.local/share/lepus"));
        for is_root in [false, true] {
            check(is_root, &[("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), ("HOME", "/a")], Some("/var/lib/a"));
        }
        check(true, &[("STATE_DIRECTORY", "")], Some("/var/lib/lepus"));
        check(false, &[], None);
    }
}
