//! What shards need of the kernel, looked at before any is started, so that a lack is told in one sentence.
//!
//! The executor (glommio 0.9) panics where it finds no `io_uring` and loses the reason; hence an own, throw-away ring.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, MembarrierCommand, capabilities, disable_transparent_huge_pages, membarrier,
    transparent_huge_pages_are_disabled,
};

use crate::server::machine::raise_locked_memory;
use crate::server::ring_memory::{KernelVersion, RingPlan, plan_rings};
use crate::server::start_error::StartError;

/// The first kernel with every operation that the executor uses.
const KERNEL_MIN: KernelVersion = (5, 8);
/// Keeps the process off huge pages until it is dropped, which restores what was before.
#[derive(Debug)]
pub struct HugePagesOff {
    were_off: bool,
}

/// Settles what concerns the whole process. To be called first, while there is one thread and little memory in use.
///
/// Announces memory barriers across threads, which can stall for tens of milliseconds where the executor only does it
/// when it first sleeps. And keeps off huge pages until all executors are made: of a disk buffer within one, the kernel
/// counts all of its 2 MiB as locked, three times for each shard. (Measured with mimalloc, whose memory the kernel
/// makes huge, and the usual limit of 8 MiB: only 4 of 16 executors could be made, 16 of 16 without huge pages.)
pub fn settle_process() -> HugePagesOff {
    // A kernel without either is fine: the executor has another way, and buffers just count for more.
    let _ = membarrier(MembarrierCommand::RegisterPrivateExpedited);
    let were_off = transparent_huge_pages_are_disabled().unwrap_or(false);
    let _ = disable_transparent_huge_pages(true);
    HugePagesOff { were_off }
}

impl Drop for HugePagesOff {
    fn drop(&mut self) {
        let _ = disable_transparent_huge_pages(self.were_off);
    }
}

/// Makes sure that `io_uring` can be used and that `shards` executors may lock the memory they need, raising the limit
/// where that is possible. Returns the rings that each may have.
///
/// # Errors
/// Why `io_uring` cannot be used, or that too little memory may be locked.
pub fn check(shards: usize) -> Result<RingPlan, StartError> {
    let kernel = Kernel::look();
    probe_io_uring().map_err(|failure| kernel.explain(failure))?;
    plan_rings(shards, kernel.version(), may_lock_freely(), raise_locked_memory)
}

/// What a ring was refused with.
#[derive(Debug)]
enum ProbeFailure {
    Setup(io::Error),
    OperationsMissing,
}

/// Sets up a small ring of each kind that the executor uses, asks for its operations and drops it.
fn probe_io_uring() -> Result<(), ProbeFailure> {
    let ring = IoUring::new(4).map_err(ProbeFailure::Setup)?;
    let _polled: IoUring = IoUring::builder().setup_iopoll().build(4).map_err(ProbeFailure::Setup)?;
    let mut probe = Probe::new();
    // Kernels before 5.6 cannot tell what they support, which says enough.
    ring.submitter().register_probe(&mut probe).map_err(|_| ProbeFailure::OperationsMissing)?;
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::ReadFixed::CODE,
        opcode::WriteFixed::CODE,
        opcode::PollAdd::CODE,
        opcode::PollRemove::CODE,
        opcode::SendMsg::CODE,
        opcode::RecvMsg::CODE,
        opcode::Timeout::CODE,
        opcode::TimeoutRemove::CODE,
        opcode::Accept::CODE,
        opcode::LinkTimeout::CODE,
        opcode::Connect::CODE,
        opcode::Fallocate::CODE,
        opcode::OpenAt::CODE,
        opcode::Close::CODE,
        opcode::Statx::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Send::CODE,
        opcode::Recv::CODE,
    ];
    if needed.iter().all(|&code| probe.is_supported(code)) { Ok(()) } else { Err(ProbeFailure::OperationsMissing) }
}

/// What is known about the kernel when it has refused something.
struct Kernel {
    /// As `uname -r` tells it.
    release: String,
    /// The sysctl `kernel.io_uring_disabled`; kernels before 6.6 have none.
    io_uring_disabled: Option<u8>,
    /// Whether system calls of this process are filtered.
    seccomp_filters: bool,
}

impl Kernel {
    fn look() -> Kernel {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Kernel {
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            seccomp_filters: seccomp.is_some_and(|mode| mode.trim() == "2"),
        }
    }

    /// The numbers at the front of the release; zeros where there are none.
    fn version(&self) -> KernelVersion {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn explain(&self, failure: ProbeFailure) -> StartError {
        let release = || self.release.clone();
        let source = match failure {
            ProbeFailure::OperationsMissing => return StartError::KernelTooOld { release: release() },
            ProbeFailure::Setup(source) => source,
        };
        match Errno::from_io_error(&source) {
            Some(Errno::NOSYS) if self.version() < KERNEL_MIN => StartError::KernelTooOld { release: release() },
            Some(Errno::NOSYS) => StartError::IoUringAbsent { release: release() },
            Some(Errno::PERM | Errno::ACCESS) => match self.io_uring_disabled {
                Some(level @ 1..) => StartError::IoUringDisabled { level },
                _ if self.seccomp_filters => StartError::IoUringFiltered,
                _ => StartError::IoUring { source },
            },
            _ => StartError::IoUring { source },
        }
    }
}

/// Whether the kernel does not count the memory that `io_uring` locks for this process.
///
/// It asks for the capability in the first user namespace, so that of root in a rootless container does not do.
fn may_lock_freely() -> bool {
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let uid_map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    capable && uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the machine that runs the tests can run shards. Method: the check itself, for one shard.
    #[test]
    fn this_machine_can_run_a_shard() {
        check(1).expect("io_uring");
    }

    fn explain(release: &str, disabled: Option<u8>, seccomp_filters: bool, errno: Errno) -> StartError {
        let kernel = Kernel { release: release.to_owned(), io_uring_disabled: disabled, seccomp_filters };
        kernel.explain(ProbeFailure::Setup(errno.into()))
    }

    /// Goal: each way of being refused gets its own sentence. Method: each error with what the kernel shows beside it.
    #[test]
    fn refusals_are_explained() {
        let old = explain("5.7.19-1-amd64", None, false, Errno::NOSYS);
        assert!(matches!(old, StartError::KernelTooOld { .. }), "{old:?}");
        let absent = explain("5.8.0", None, true, Errno::NOSYS);
        assert!(matches!(absent, StartError::IoUringAbsent { .. }), "{absent:?}");
        let disabled = explain("6.6.1", Some(2), true, Errno::PERM);
        assert!(matches!(disabled, StartError::IoUringDisabled { level: 2 }), "{disabled:?}");
        let filtered = explain("6.6.1", Some(0), true, Errno::PERM);
        assert!(matches!(filtered, StartError::IoUringFiltered), "{filtered:?}");
        for errno in [Errno::PERM, Errno::NOMEM, Errno::MFILE] {
            let other = explain("6.6.1", None, false, errno);
            assert!(matches!(other, StartError::IoUring { .. }), "{other:?}");
        }
        let kernel = Kernel { release: "5.4.0".into(), io_uring_disabled: None, seccomp_filters: false };
        assert!(matches!(kernel.explain(ProbeFailure::OperationsMissing), StartError::KernelTooOld { .. }));
    }

    /// Goal: kernel releases are read as distributions write them. Method: some of them, and one that is none.
    #[test]
    fn kernel_versions() {
        for (release, version) in
            [("6.18.44-fc-v595", (6, 18)), ("5.15", (5, 15)), ("4.18.0-513.el8", (4, 18)), ("", (0, 0))]
        {
            let kernel = Kernel { release: release.into(), io_uring_disabled: None, seccomp_filters: false };
            assert_eq!(kernel.version(), version, "{release}");
        }
    }
}
