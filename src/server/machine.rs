//! What the machine gives the process: cores, memory, memory that may be locked, file descriptors.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::cgroup;

/// What shards and their memory can be planned with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The cores that the process may run on (its CPU affinity, which a cpuset narrows), ascending. Never empty.
    pub cores: Vec<usize>,
    /// The CPU time that a control group allows, in whole cores, rounded up. `None` is no limit.
    pub cpu_quota_cores: Option<usize>,
    /// What the machine has or a control group allows, whichever is less, in octets.
    pub memory_octets: u64,
}

impl Machine {
    /// Looks at the machine that the process runs on.
    pub fn look() -> Machine {
        let root = Path::new("/");
        let cores = core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        Machine::with_cores(cores, root)
    }

    fn with_cores(mut cores: Vec<usize>, root: &Path) -> Machine {
        if cores.is_empty() {
            // The classic CPU set ends at 1024 cores; a machine with more refuses to fill it in.
            cores = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
        }
        let limits = cgroup::limits(root);
        let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
        let installed_octets = memory_total_octets(&meminfo).unwrap_or(u64::MAX);
        let memory_octets = limits.memory_octets.map_or(installed_octets, |limit| limit.min(installed_octets));
        Machine { cores, cpu_quota_cores: limits.cpu_cores, memory_octets }
    }
}

/// `MemTotal` of `/proc/meminfo`, in octets.
fn memory_total_octets(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Raises the number of files that may be open as far as the process is allowed to; each connection is one.
///
/// Returns the number that holds now. `None` is no limit.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    }
}

/// Raises the memory that may be locked to `needed_octets` where it is less, beyond the hard limit where the process is
/// privileged to.
///
/// Returns what may be locked now, in octets. `None` is no limit.
pub fn raise_locked_memory(needed_octets: u64) -> Option<u64> {
    let limit = getrlimit(Resource::Memlock);
    let current_octets = limit.current?;
    if current_octets >= needed_octets {
        return Some(current_octets);
    }
    let beyond = Rlimit { current: Some(needed_octets), maximum: limit.maximum.map(|most| most.max(needed_octets)) };
    let within = Rlimit { current: limit.maximum, maximum: limit.maximum };
    for raised in [beyond, within] {
        if setrlimit(Resource::Memlock, raised).is_ok() {
            return raised.current;
        }
    }
    Some(current_octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the machine that runs the tests has cores and memory. Method: look at it.
    #[test]
    fn this_machine_has_cores_and_memory() {
        let machine = Machine::look();
        assert!(!machine.cores.is_empty());
        assert!(machine.cores.is_sorted());
        assert!(machine.memory_octets > 1 << 20, "{machine:?}");
    }

    /// Goal: memory is what is installed or what the control group allows, whichever is less.
    /// Method: a limit below and one above what is installed.
    #[test]
    fn memory_is_the_lesser_of_installed_and_allowed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            fs::write(path, text).expect("file");
        };
        write("proc/meminfo", "MemFree:  1 kB\nMemTotal:       1000 kB\n");
        write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        write("proc/self/cgroup", "0::/\n");
        for (limit, expected) in [("max", 1_024_000), ("1023999", 1_023_999), ("1024001", 1_024_000)] {
            write("sys/fs/cgroup/memory.max", limit);
            assert_eq!(Machine::with_cores(vec![0], root.path()).memory_octets, expected, "memory.max {limit}");
        }
    }
}
