//! Why the broker cannot start, each reason as one sentence with its remedy.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::control::database::DatabaseError;
use crate::server::core_list;
use crate::server::data_dir::DataDirError;
use crate::store::StoreError;
use crate::store::damage::remedy;

/// Why the broker cannot start. `Display` is the sentence that the user gets to read.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named for what they hold")]
pub enum StartError {
    /// Another program listens on the port.
    PortInUse { address: SocketAddr },
    /// The port is one of the privileged ones.
    PortForbidden { address: SocketAddr },
    /// No interface of the machine has the address.
    AddressNotHere { address: SocketAddr },
    /// Listening failed for another reason.
    Listen { address: SocketAddr, source: io::Error },
    /// A core was asked for that the process may not use.
    CoreNotAvailable { core: usize, available: Vec<usize> },
    /// The kernel has no `io_uring`, or one that lacks what shards need.
    KernelTooOld { release: String },
    /// The kernel would be new enough, but says that it has no `io_uring`.
    IoUringAbsent { release: String },
    /// `kernel.io_uring_disabled` forbids it: 1 to the unprivileged, 2 to all.
    IoUringDisabled { level: u8 },
    /// A seccomp filter forbids it, as container runtimes do by default.
    IoUringFiltered,
    /// Setting up `io_uring` failed for another reason.
    IoUring { source: io::Error },
    /// The process may not lock as much memory as its shards need.
    LockedMemory { shards: usize, needed_octets: u64, allowed_octets: u64, shards_possible: usize },
    /// The definitions file cannot be used. The text names the file, the place and the reason.
    Definitions(String),
    /// The data directory cannot be used.
    DataDir(DataDirError),
    /// The database in it cannot be used.
    Database(DatabaseError),
    /// What was left in it cannot be read, or is damaged.
    Store { directory: PathBuf, error: StoreError },
    /// What salvaging has written is not what it was to write.
    Salvage { queue: String, expected: u64, found: u64 },
    /// A thread, shard or signal handler could not be set up.
    Setup { what: String, source: io::Error },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::PortInUse { address } => write!(
                f,
                "port {} on {} is already in use, perhaps by another broker; stop that program (ss -ltnp shows it) or \
                 choose another port with --port.",
                address.port(),
                address.ip()
            ),
            StartError::PortForbidden { address } => write!(
                f,
                "this user may not listen on port {} of {}; choose a port from 1024 on with --port, or grant \
                 CAP_NET_BIND_SERVICE.",
                address.port(),
                address.ip()
            ),
            StartError::AddressNotHere { address } => write!(
                f,
                "this machine does not have the address {}; give one of its own with --bind, or 0.0.0.0 for all of IPv4.",
                address.ip()
            ),
            StartError::Listen { address, source } => {
                write!(f, "cannot listen on {address} ({source}); choose another address with --bind and --port.")
            }
            StartError::CoreNotAvailable { core, available } => write!(
                f,
                "core {core} is not available to this process; choose with --cores among {}.",
                core_list::join(available)
            ),
            StartError::Definitions(reason) => f.write_str(reason),
            StartError::DataDir(reason) => write!(f, "{reason}"),
            StartError::Database(reason) => write!(
                f,
                "cannot use the definitions in {reason}; bring a sound copy of it back, or name another directory with \
                 --data-dir."
            ),
            StartError::Store { directory, error: error @ StoreError::Damage(_) } => {
                write!(f, "{error} (in {}); {}.", directory.display(), remedy(directory))
            }
            StartError::Store { error, .. } => write!(f, "{error}."),
            StartError::Salvage { queue, expected, found } => write!(
                f,
                "cannot salvage queue '{queue}': {expected} messages were to be kept and {found} were; all is left as it was, \
                 please report this."
            ),
            StartError::Setup { what, source } => write!(f, "cannot set up {what}: {source}."),
            _ => self.fmt_io_uring(f),
        }
    }
}

impl StartError {
    /// The sentences about `io_uring` and the memory that it locks.
    fn fmt_io_uring(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::KernelTooOld { release } => {
                write!(f, "the Linux kernel {release} is too old for io_uring as Lepus needs it; run 5.8 or newer.")
            }
            StartError::IoUringAbsent { release } => write!(
                f,
                "io_uring is missing although the Linux kernel {release} is new enough: it was built without \
                 (CONFIG_IO_URING), or a sandbox hides it; in a container, allow io_uring_setup, io_uring_enter and \
                 io_uring_register in the seccomp profile (Docker, Podman: --security-opt seccomp=unconfined allows all)."
            ),
            StartError::IoUringDisabled { level: 1 } => f.write_str(
                "io_uring is reserved for privileged processes by the sysctl kernel.io_uring_disabled=1; allow it with \
                 'sysctl kernel.io_uring_disabled=0', or put this user's group number into kernel.io_uring_group.",
            ),
            StartError::IoUringDisabled { level } => write!(
                f,
                "io_uring is switched off by the sysctl kernel.io_uring_disabled={level}; allow it with \
                 'sysctl kernel.io_uring_disabled=0'."
            ),
            StartError::IoUringFiltered => f.write_str(
                "io_uring is blocked by a seccomp filter, as in containers by default; allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the profile (Docker, Podman: --security-opt \
                 seccomp=unconfined allows all).",
            ),
            StartError::LockedMemory { shards, needed_octets, allowed_octets, shards_possible } => {
                let needed_kib = needed_octets.div_ceil(1024);
                write!(
                    f,
                    "{shards} shard{} must lock {needed_kib} KiB of memory for io_uring but this process may lock {} KiB \
                     only; raise the limit (ulimit -l {needed_kib}, LimitMEMLOCK={needed_kib}K for systemd, --ulimit \
                     memlock={} for Docker)",
                    if *shards == 1 { "" } else { "s" },
                    allowed_octets / 1024,
                    needed_kib * 1024,
                )?;
                match shards_possible {
                    0 => f.write_str("."),
                    possible => write!(f, " or run fewer with --shards {possible}."),
                }
            }
            StartError::IoUring { source } if source.kind() == io::ErrorKind::OutOfMemory => f.write_str(
                "io_uring cannot lock the memory that it needs, of which other programs of this user may hold some; raise \
                 the limit (ulimit -l 65536, LimitMEMLOCK=64M for systemd, --ulimit memlock=67108864 for Docker) or run \
                 fewer shards with --shards.",
            ),
            StartError::IoUring { source } => {
                write!(
                    f,
                    "io_uring cannot be set up ({source}); see whether the limits of this process or a sandbox forbid it."
                )
            }
            _ => unreachable!("the other sentences are not about io_uring"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<DataDirError> for StartError {
    fn from(error: DataDirError) -> Self {
        Self::DataDir(error)
    }
}

impl From<DatabaseError> for StartError {
    fn from(error: DatabaseError) -> Self {
        Self::Database(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every reason is one line that ends as a sentence and names what can be done.
    /// Method: one of each, with the word of its remedy.
    #[test]
    fn reasons_are_sentences_with_a_remedy() {
        let address = SocketAddr::from(([127, 0, 0, 1], 5672));
        let release = || "4.19.0".to_owned();
        let reasons = [
            (StartError::PortInUse { address }, "--port"),
            (StartError::PortForbidden { address }, "--port"),
            (StartError::AddressNotHere { address }, "--bind"),
            (StartError::Listen { address, source: io::Error::other("x") }, "--bind"),
            (StartError::CoreNotAvailable { core: 9, available: vec![0, 1] }, "0, 1"),
            (StartError::KernelTooOld { release: release() }, "5.8"),
            (StartError::IoUringAbsent { release: release() }, "seccomp"),
            (StartError::IoUringDisabled { level: 1 }, "kernel.io_uring_group"),
            (StartError::IoUringDisabled { level: 2 }, "sysctl kernel.io_uring_disabled=0"),
            (StartError::IoUringFiltered, "--security-opt"),
            (StartError::IoUring { source: io::Error::other("x") }, "limits"),
            (StartError::IoUring { source: io::ErrorKind::OutOfMemory.into() }, "ulimit -l"),
            (StartError::DataDir(DataDirError::NoPlace), "--data-dir"),
            (StartError::Database(DatabaseError { file: "/d".into(), reason: "x".into() }), "--data-dir"),
            (
                StartError::LockedMemory {
                    shards: 64,
                    needed_octets: 12 << 20,
                    allowed_octets: 8 << 20,
                    shards_possible: 42,
                },
                "ulimit -l 12288, ",
            ),
        ];
        for (reason, remedy) in reasons {
            let sentence = reason.to_string();
            assert!(sentence.ends_with('.') && !sentence.contains('\n') && !sentence.contains("  "), "{sentence}");
            assert!(sentence.contains(remedy), "{sentence}");
        }
    }

    /// Goal: fewer shards are only advised where some would fit. Method: none fits, then some.
    #[test]
    fn fewer_shards_are_advised_where_some_fit() {
        let locked = |shards_possible| StartError::LockedMemory {
            shards: 8,
            needed_octets: 2 << 20,
            allowed_octets: 1 << 20,
            shards_possible,
        };
        assert!(!locked(0).to_string().contains("--shards"));
        assert!(locked(5).to_string().ends_with("--shards 5."));
    }
}
