//! The file in which definitions outlive the process, an embedded database (redb). A driver.
//!
//! What is committed here has happened, and nobody is told of a durable change before. After a crash the database is as after
//! its last commit; that is redb's to see to, and every page is verified against its checksum when it is opened. The file also
//! holds the number of the broker's last start (the *epoch*), and the last number that was given to a queue, an exchange or a
//! binding: neither comes ever again, since files beside this one are named by them.
//!
//! | Table | Key | Value |
//! | --- | --- | --- |
//! | `meta` | `layout`, `epoch`, `last-number` | number |
//! | `vhosts`, `users` | name | see `kept_values` |
//! | `permissions` | user, virtual host | as well |
//! | `exchanges`, `queues`, `bindings` | number | as well |

use super::{database_file::DatabaseFile, kept_values as values};
use crate::definitions::{DurableChange, DurableChanges, restore::Kept};
use redb::{
    CommitError, DatabaseError as OpenError, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend,
    StorageError, Table, TableDefinition, TableError, TransactionError, WriteTransaction, backends::InMemoryBackend,
};
use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// The layout of tables and values that this version writes and reads.
const LAYOUT: u64 = 1;
/// Memory for pages of the file. What exists is read once, at start.
const CACHE_OCTETS: usize = 4 << 20;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VHOSTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vhosts");
const USERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("users");
const PERMISSIONS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("permissions");
const EXCHANGES: Numbered = TableDefinition::new("exchanges");
const QUEUES: Numbered = TableDefinition::new("queues");
const BINDINGS: Numbered = TableDefinition::new("bindings");

type Numbered = TableDefinition<'static, u64, &'static [u8]>;

/// What is wrong with the database's file. `Display` is a sentence without its end.
#[derive(Debug)]
pub struct DatabaseError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, and where in it.
    pub reason: String,
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.reason)
    }
}

impl std::error::Error for DatabaseError {}

/// See the module's documentation.
pub struct Database {
    database: redb::Database,
    file: PathBuf,
    /// How often changes were committed since the start.
    commits: u64,
}

impl Database {
    /// Opens the file, which is made if it is not there. Its whole content is verified.
    ///
    /// # Errors
    /// Where it cannot be opened, is no such database, is damaged, or was written by a version that this one does not know.
    pub fn open(file: &Path) -> Result<Self, DatabaseError> {
        Self::try_open(file).map_err(|fault| DatabaseError { file: file.to_owned(), reason: fault.0 })
    }

    fn try_open(file: &Path) -> Result<Self, Fault> {
        match fs::metadata(file) {
            Ok(found) if found.len() > 0 => return Self::with_backend(DatabaseFile::open(file)?, file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
        // Under its name it is there as a whole or not at all: redb refuses one whose making was cut short.
        let new = file.with_extension("redb.new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let database = Self::with_backend(DatabaseFile::open(&new)?, file)?;
        fs::rename(&new, file)?;
        if let Some(directory) = file.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(database)
    }

    /// A copy of the file in memory: whatever is done with it, the file stays as it is.
    ///
    /// # Errors
    /// Those of [`Database::open`]; also where there is no such file.
    pub fn open_copy(file: &Path) -> Result<Self, DatabaseError> {
        let copy = || -> Result<Self, Fault> {
            let octets = fs::read(file)?;
            let memory = InMemoryBackend::new();
            let copied = memory.set_len(octets.len() as u64).and_then(|()| memory.write(0, &octets));
            copied.map_err(|error| Fault(error.to_string()))?;
            Self::with_backend(memory, file)
        };
        copy().map_err(|fault| DatabaseError { file: file.to_owned(), reason: fault.0 })
    }

    /// The number of the epoch that was begun last; 0 if none was.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn epoch(&self) -> Result<u64, DatabaseError> {
        let read = || -> Result<u64, Fault> { Ok(meta(&self.database.begin_read()?, "epoch")?.unwrap_or(0)) };
        read().map_err(|fault| self.error(fault))
    }

    /// One in memory, for tests of what is around it. It is as durable as this value.
    pub fn in_memory() -> Self {
        let opened = Self::with_backend(InMemoryBackend::new(), Path::new("memory"));
        opened.unwrap_or_else(|fault| panic!("memory does not fail: {fault}"))
    }

    fn with_backend(backend: impl StorageBackend, file: &Path) -> Result<Self, Fault> {
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE_OCTETS).set_check_integrity_on_open(true);
        let database = Self { database: builder.create_with_backend(backend)?, file: file.to_owned(), commits: 0 };
        database.check_layout()?;
        Ok(database)
    }

    fn check_layout(&self) -> Result<(), Fault> {
        let transaction = self.database.begin_read()?;
        if transaction.list_tables()?.next().is_none() {
            return Ok(());
        }
        match meta(&transaction, "layout")? {
            Some(LAYOUT) => Ok(()),
            Some(other) => Err(Fault(format!(
                "its layout is number {other}, this version of lepus knows number {LAYOUT} only; start the version that \
                 wrote it"
            ))),
            None => Err(Fault("it has tables, but does not say in which layout".to_owned())),
        }
    }

    /// Begins the next epoch, and returns its number: 1 for the first. It is on disk when this returns.
    ///
    /// # Errors
    /// Where it could not be written.
    pub fn begin_epoch(&mut self) -> Result<u64, DatabaseError> {
        self.try_begin_epoch().map_err(|fault| self.error(fault))
    }

    fn try_begin_epoch(&self) -> Result<u64, Fault> {
        let transaction = self.begin_write()?;
        let mut meta = transaction.open_table(META)?;
        let last = meta.get("epoch")?.map_or(0, |epoch| epoch.value());
        let epoch = last.checked_add(1).ok_or_else(|| Fault("there are no more epochs".to_owned()))?;
        meta.insert("layout", LAYOUT)?;
        meta.insert("epoch", epoch)?;
        drop(meta);
        transaction.commit()?;
        Ok(epoch)
    }

    /// All that is kept; `None` where nothing was ever committed.
    ///
    /// # Errors
    /// The first thing that cannot be read, by its table and key.
    pub fn load(&self) -> Result<Option<Kept>, DatabaseError> {
        self.try_load().map_err(|fault| self.error(fault))
    }

    fn try_load(&self) -> Result<Option<Kept>, Fault> {
        let transaction = self.database.begin_read()?;
        let Some(last_number) = meta(&transaction, "last-number")? else { return Ok(None) };
        let mut kept = Kept { last_number, ..Kept::default() };
        for entry in transaction.open_table(VHOSTS)?.iter()? {
            kept.vhosts.push(entry?.0.value().into());
        }
        for entry in transaction.open_table(USERS)?.iter()? {
            let (name, value) = entry?;
            let user = values::take_user(name.value(), value.value());
            kept.users.push(user.map_err(|reason| unreadable(format_args!("user '{}'", name.value()), reason))?);
        }
        for entry in transaction.open_table(PERMISSIONS)?.iter()? {
            let (key, value) = entry?;
            let (user, vhost) = key.value();
            let what = format_args!("permissions of user '{user}' in vhost '{vhost}'");
            let permissions = values::take_permissions(user, vhost, value.value());
            kept.permissions.push(permissions.map_err(|reason| unreadable(what, reason))?);
        }
        kept.exchanges = take_numbered(&transaction, EXCHANGES, "exchange", values::take_exchange)?;
        kept.queues = take_numbered(&transaction, QUEUES, "queue", values::take_queue)?;
        kept.bindings = take_numbered(&transaction, BINDINGS, "binding", values::take_binding)?;
        Ok(Some(kept))
    }

    /// Keeps these changes, all or none. They are on disk when this returns. Nothing is done where there are none.
    ///
    /// # Errors
    /// Where that failed. Whether they are on disk is unknown then, and the process must end: what was refused to be synced
    /// once may be reported as synced the next time.
    pub fn commit(&mut self, changes: &DurableChanges) -> Result<(), DatabaseError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.try_commit(changes).map_err(|fault| self.error(fault))?;
        self.commits += 1;
        tracing::debug!(changes = changes.changes.len(), commits = self.commits, "committed");
        Ok(())
    }

    fn try_commit(&self, changes: &DurableChanges) -> Result<(), Fault> {
        let transaction = self.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        for change in &changes.changes {
            tables.apply(change)?;
        }
        tables.meta.insert("last-number", changes.last_number)?;
        drop(tables);
        transaction.commit()?;
        Ok(())
    }

    /// A transaction whose last page is synced before the header that names it. With one sync for both, damage to the last
    /// commit would look like a commit that was cut short, and be undone in silence.
    fn begin_write(&self) -> Result<WriteTransaction, Fault> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    /// The error of this file.
    pub fn error(&self, fault: impl fmt::Display) -> DatabaseError {
        DatabaseError { file: self.file.clone(), reason: fault.to_string() }
    }
}

fn meta(transaction: &ReadTransaction, key: &str) -> Result<Option<u64>, Fault> {
    match transaction.open_table(META) {
        Ok(table) => Ok(table.get(key)?.map(|value| value.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn take_numbered<T>(
    transaction: &ReadTransaction,
    table: Numbered,
    kind: &str,
    take: impl Fn(u64, &[u8]) -> Result<T, String>,
) -> Result<Vec<T>, Fault> {
    let mut all = Vec::new();
    for entry in transaction.open_table(table)?.iter()? {
        let (number, value) = entry?;
        let number = number.value();
        let thing = take(number, value.value());
        all.push(thing.map_err(|reason| unreadable(format_args!("{kind} {number}"), reason))?);
    }
    Ok(all)
}

fn unreadable(what: impl fmt::Display, reason: String) -> Fault {
    Fault(format!("{what} cannot be read: {reason}"))
}

/// All tables of one transaction that writes.
struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    vhosts: Table<'t, &'static str, &'static [u8]>,
    users: Table<'t, &'static str, &'static [u8]>,
    permissions: Table<'t, (&'static str, &'static str), &'static [u8]>,
    exchanges: Table<'t, u64, &'static [u8]>,
    queues: Table<'t, u64, &'static [u8]>,
    bindings: Table<'t, u64, &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            vhosts: transaction.open_table(VHOSTS)?,
            users: transaction.open_table(USERS)?,
            permissions: transaction.open_table(PERMISSIONS)?,
            exchanges: transaction.open_table(EXCHANGES)?,
            queues: transaction.open_table(QUEUES)?,
            bindings: transaction.open_table(BINDINGS)?,
        })
    }

    fn apply(&mut self, change: &DurableChange) -> Result<(), StorageError> {
        match change {
            DurableChange::PutVhost(name) => drop(self.vhosts.insert(&**name, &[][..])?),
            DurableChange::DeleteVhost(name) => drop(self.vhosts.remove(&**name)?),
            DurableChange::PutUser(user) => drop(self.users.insert(&*user.name, &*values::put_user(user))?),
            DurableChange::DeleteUser(name) => drop(self.users.remove(&**name)?),
            DurableChange::PutPermissions(it) => {
                drop(self.permissions.insert((&*it.user, &*it.vhost), &*values::put_permissions(it))?);
            }
            DurableChange::DeletePermissions { user, vhost } => drop(self.permissions.remove((&**user, &**vhost))?),
            DurableChange::PutExchange(exchange) => {
                drop(self.exchanges.insert(exchange.id.0, &*values::put_exchange(exchange))?);
            }
            DurableChange::DeleteExchange(id) => drop(self.exchanges.remove(id.0)?),
            DurableChange::PutQueue(queue) => drop(self.queues.insert(queue.id.0, &*values::put_queue(queue))?),
            DurableChange::DeleteQueue(id) => drop(self.queues.remove(id.0)?),
            DurableChange::PutBinding { vhost, source, binding } => {
                drop(self.bindings.insert(binding.sequence, &*values::put_binding(vhost, source, binding))?);
            }
            DurableChange::DeleteBinding(number) => drop(self.bindings.remove(number)?),
        }
        Ok(())
    }
}

/// What went wrong, in words.
struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            return Self(format!("it is not a database of lepus ({error})"));
        }
        Self(error.to_string())
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => error.into(),
            StorageError::Corrupted(what) => Self(format!("it is damaged: {what}")),
            other => Self(other.to_string()),
        }
    }
}

impl From<OpenError> for Fault {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Storage(error) => error.into(),
            OpenError::DatabaseAlreadyOpen => Self("another program has it open".to_owned()),
            other => Self(other.to_string()),
        }
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self(other.to_string()),
        }
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self(format!("it is damaged: {other}")),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
