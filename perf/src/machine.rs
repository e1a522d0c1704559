//! The machine a run was made on, and the cores its threads are on.

use std::fs;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What a report says of the machine.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Machine {
    /// As `/proc/cpuinfo` has it.
    pub cpu_model: String,
    /// Cores of the machine.
    pub cores: usize,
    /// Kernel and its version.
    pub kernel: String,
    /// Cores that the load generator may run on.
    pub load_cores: Vec<usize>,
}

impl Machine {
    /// This machine.
    pub fn look() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu_model: field("model name"),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: format!("Linux {}", kernel.trim()),
            load_cores: own_cores(),
        }
    }
}

fn own_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Keeps the calling thread, and those that it starts, to these cores.
///
/// # Errors
/// Where one of them is not there.
pub fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("--cores {cores:?}: {error}"))?;
    // The kernel silently leaves out what is not there.
    if own_cores() == cores {
        Ok(())
    } else {
        Err(format!("--cores {cores:?}: only {:?} of them are there", own_cores()))
    }
}
