//! What shards need of the kernel, looked at before any is started, so that a lack is told in one sentence.
//!
//! The executor (glommio 0.9) panics where it finds no `io_uring` and loses the reason; hence an own, throw-away ring.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, MembarrierCommand, capabilities, membarrier};

use crate::server::machine::raise_locked_memory;
use crate::server::start_error::StartError;

/// Entries in each submission queue of a shard.
///
/// 4096, so that the executor's throughput timer does not fire in a burst of completions.
pub const RING_DEPTH: usize = 4096;

/// Rings of each executor: main, latency and poll.
const RINGS_PER_SHARD: u64 = 3;
/// What the executor demands of the limit on locked memory, however little it uses, in octets.
const LOCKED_OCTETS_MIN: u64 = 512 << 10;
/// Disk buffers of each shard where memory may be locked freely, in octets; registered once with each ring.
const IO_MEMORY_OCTETS_MAX: usize = 1 << 20;
/// The least that the executor takes for disk buffers, in octets.
const IO_MEMORY_OCTETS_MIN: usize = 64 << 10;
/// What one ring of [`RING_DEPTH`] locks where the kernel counts it, in octets.
///
/// Queue entries, 64 octets each, and one block with the submission array (4 octets for each entry) and twice as many
/// completions (16 octets each); both are rounded up to a power of two of pages.
const RING_OCTETS: u64 =
    ((RING_DEPTH * 64).next_power_of_two() + (RING_DEPTH * 4 + 2 * RING_DEPTH * 16).next_power_of_two()) as u64;

const _: () = assert!(IO_MEMORY_OCTETS_MIN.is_power_of_two() && IO_MEMORY_OCTETS_MIN < IO_MEMORY_OCTETS_MAX);
const _: () = assert!(RING_OCTETS == 512 << 10);

/// A kernel's major and minor number.
type KernelVersion = (u32, u32);

/// The first kernel with every operation that the executor uses.
const KERNEL_MIN: KernelVersion = (5, 8);
/// The first kernel that counts rings as memory of their control group and no longer as locked memory.
const KERNEL_RINGS_UNLOCKED: KernelVersion = (5, 12);

/// Announces the use of memory barriers across threads. To be called first, while there is one thread.
///
/// Later it can stall for tens of milliseconds; the executor does it when it first sleeps. A kernel without it is fine:
/// the executor then has another way.
pub fn register_membarrier() {
    let _ = membarrier(MembarrierCommand::RegisterPrivateExpedited);
}

/// Makes sure that `io_uring` can be used and that `shards` executors may lock the memory they need, raising the limit
/// where that is possible.
///
/// Returns how much memory for disk buffers each executor may have, in octets.
///
/// # Errors
/// Why `io_uring` cannot be used, or that too little memory may be locked.
pub fn check(shards: usize) -> Result<usize, StartError> {
    let kernel = Kernel::look();
    probe_io_uring().map_err(|failure| kernel.explain(failure))?;
    let rings_are_locked = kernel.version() < KERNEL_RINGS_UNLOCKED;
    plan_io_memory(shards, rings_are_locked, may_lock_freely(), raise_locked_memory)
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

/// The largest disk buffers, in octets for each shard, with which all shards fit under the limit on locked memory.
///
/// `raise` is asked for the octets that would be best and answers with those that may be locked, `None` for any number.
fn plan_io_memory(
    shards: usize,
    rings_are_locked: bool,
    may_lock_freely: bool,
    raise: impl FnOnce(u64) -> Option<u64>,
) -> Result<usize, StartError> {
    let needed_per_shard = |io_memory_octets: usize| {
        let ring_octets = if rings_are_locked { RING_OCTETS } else { 0 };
        if may_lock_freely { 0 } else { RINGS_PER_SHARD * (ring_octets + io_memory_octets as u64) }
    };
    let needed = |io_memory_octets| (needed_per_shard(io_memory_octets) * shards as u64).max(LOCKED_OCTETS_MIN);

    let Some(allowed_octets) = raise(needed(IO_MEMORY_OCTETS_MAX)) else { return Ok(IO_MEMORY_OCTETS_MAX) };
    let mut io_memory_octets = IO_MEMORY_OCTETS_MAX;
    while needed(io_memory_octets) > allowed_octets {
        if io_memory_octets == IO_MEMORY_OCTETS_MIN {
            let fitting = allowed_octets.checked_div(needed_per_shard(IO_MEMORY_OCTETS_MIN)).unwrap_or(0);
            let shards_possible = if allowed_octets < LOCKED_OCTETS_MIN { 0 } else { fitting };
            return Err(StartError::LockedMemory {
                shards,
                needed_octets: needed(IO_MEMORY_OCTETS_MIN),
                allowed_octets,
                shards_possible: usize::try_from(shards_possible).expect("fewer than the shards that were asked for"),
            });
        }
        io_memory_octets /= 2;
    }
    Ok(io_memory_octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the machine that runs the tests can run shards. Method: the check itself, for one shard.
    #[test]
    fn this_machine_can_run_a_shard() {
        register_membarrier();
        let io_memory_octets = check(1).expect("io_uring");
        assert!((IO_MEMORY_OCTETS_MIN..=IO_MEMORY_OCTETS_MAX).contains(&io_memory_octets));
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

    /// Plans under a limit that cannot be raised.
    fn plan(shards: usize, rings_are_locked: bool, may_lock_freely: bool, allowed: u64) -> Result<usize, StartError> {
        plan_io_memory(shards, rings_are_locked, may_lock_freely, |_| Some(allowed))
    }

    /// Goal: disk buffers shrink until all shards fit. Method: both sides of the limit at the largest and smallest size.
    #[test]
    fn disk_buffers_shrink_to_fit() {
        assert_eq!(plan(2, false, false, 6 << 20).expect("fits"), 1 << 20);
        assert_eq!(plan(2, false, false, (6 << 20) - 1).expect("fits"), 512 << 10);
        assert_eq!(plan(42, false, false, 8 << 20).expect("fits"), 64 << 10);
        assert_eq!(plan_io_memory(256, true, false, |_| None).expect("no limit"), 1 << 20);
        assert_eq!(plan(256, true, true, 512 << 10).expect("privileged"), 1 << 20);
    }

    /// Goal: where even the smallest does not fit, the error says how many shards would.
    /// Method: one shard too many on a new kernel and on one that counts the rings.
    #[test]
    fn too_little_locked_memory() {
        for (shards, rings_are_locked, allowed, fitting) in
            [(43, false, 8 << 20, 42), (5, true, 8 << 20, 4), (1, true, 512 << 10, 0), (1, false, (512 << 10) - 1, 0)]
        {
            match plan(shards, rings_are_locked, false, allowed) {
                Err(StartError::LockedMemory { allowed_octets, shards_possible, .. }) => {
                    assert_eq!((allowed_octets, shards_possible), (allowed, fitting));
                }
                other => panic!("{shards} shards: {other:?}"),
            }
        }
        assert!(plan(1, false, true, (512 << 10) - 1).is_err(), "the executor asks even the privileged");
    }

    /// Goal: the limit is raised as far as the best size needs. Method: look at what is asked for.
    #[test]
    fn limit_is_raised_for_the_best_size() {
        let mut asked = 0;
        let planned = plan_io_memory(4, true, false, |octets| {
            asked = octets;
            Some(octets)
        });
        assert_eq!((planned.expect("raised"), asked), (1 << 20, 4 * 3 * ((512 << 10) + (1 << 20))));
    }
}
