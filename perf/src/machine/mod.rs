//! The machine a run was made on, and the cores its threads are on.

pub mod broker_process;
pub mod page_cache;
pub mod process;

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::options::CoreList;
use crate::result::Origin;

impl Origin {
    /// Here and now, by this command line; passwords in it are left out.
    pub fn here(command: impl IntoIterator<Item = String>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&meminfo, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("LEPUS_REVISION").map(str::to_owned),
            command: command.into_iter().map(|word| without_password(&word)).collect(),
            started_unix_millis: unix_millis(),
            cpu_model: field(&cpuinfo, "model name").unwrap_or_else(|| "unknown".to_owned()),
            processors: own_cores().len(),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            memory_octets: memory.unwrap_or(0) * 1024,
        }
    }
}

/// The time of day, in milliseconds since 1970.
pub(crate) fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A word of a command line, the password of a URI in it left out, whatever stands around the URI.
fn without_password(word: &str) -> String {
    let Some(at) = word.find("amqp://").map(|at| at + "amqp://".len()) else { return word.to_owned() };
    let (before, rest) = word.split_at(at);
    let (authority, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{before}{user}@{place}{behind}")
        }
        None => word.to_owned(),
    }
}

/// Cores that this thread may run on.
pub(crate) fn own_cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// The core and those that are the same one in the hardware: its hyperthreads.
pub(crate) fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    let list = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<CoreList>().ok());
    list.map(|list| list.0).filter(|cores| cores.contains(&core)).unwrap_or_else(|| vec![core])
}

/// Cores of the list in `/proc/PID/status`.
pub(crate) fn cores_of_status(status: &str) -> Vec<usize> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.and_then(|list| list.trim().parse::<CoreList>().ok()).map_or_else(Vec::new, |list| list.0)
}

/// Keeps the calling thread, and those that it starts, to these cores.
///
/// # Errors
/// Where one of them is not there.
pub(crate) fn pin(cores: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("--cores {cores:?}: {error}"))?;
    let mut wanted = cores.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    // The kernel silently leaves out what is not there.
    if own_cores() == wanted {
        Ok(())
    } else {
        Err(format!("--cores {cores:?}: only {:?} of them are there", own_cores()))
    }
}

/// The calling thread is kept to some cores; once this is dropped, to those from before.
pub(crate) struct Pinned {
    before: Vec<usize>,
    cores: Vec<usize>,
}

impl Pinned {
    /// To these.
    ///
    /// # Errors
    /// Where one of them is not there.
    pub(crate) fn to(cores: &[usize]) -> Result<Self, String> {
        let pinned = Self { before: own_cores(), cores: cores.to_vec() };
        pin(cores)?;
        Ok(pinned)
    }

    /// To all but these, and but the broker's, where there are others: for a thread that should disturb neither.
    pub(crate) fn stand_aside(&self, broker: &[usize]) {
        let aside = aside(&self.before, &self.cores, broker);
        if !aside.is_empty() {
            // Where it is not possible it may as well stay.
            let _ = pin(&aside);
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = pin(&self.before);
    }
}

/// Of all cores those that neither the load generator nor the broker has for itself; a broker that may run anywhere has none.
fn aside(all: &[usize], own: &[usize], broker: &[usize]) -> Vec<usize> {
    let is_anywhere = all.iter().all(|core| broker.contains(core));
    let is_aside = |core: &&usize| !own.contains(core) && (is_anywhere || !broker.contains(core));
    all.iter().filter(is_aside).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: who watches is on nobody's core, where there is one.
    #[test]
    fn cores_aside() {
        for (all, own, broker, expected) in [
            (&[0, 1, 2, 3][..], &[1][..], &[0][..], &[2, 3][..]),
            (&[0, 1, 2, 3], &[1], &[0, 1, 2, 3], &[0, 2, 3]),
            (&[0, 1, 2, 3], &[1, 2], &[], &[0, 3]),
            (&[0, 1], &[1], &[0], &[]),
        ] {
            assert_eq!(aside(all, own, broker), expected, "{all:?} {own:?} {broker:?}");
        }
    }

    /// Goal: a thread that was kept to a core, in whatever order and how often that is named, gets its others back; also where
    /// there is no such core.
    #[test]
    fn cores_are_given_back() {
        let before = own_cores();
        let last = *before.last().expect("it runs somewhere");
        let pinned = Pinned::to(&[last, before[0], last]).expect("they are there");
        assert!(own_cores().len() <= 2);
        drop(pinned);
        assert_eq!(own_cores(), before);
        assert!(Pinned::to(&[before[0], 1000]).is_err());
        assert_eq!(own_cores(), before);
    }

    /// Goal: no command line in a result has a password, in whatever word it stands.
    #[test]
    fn words_without_passwords() {
        for (word, expected) in [
            ("--rate=5", "--rate=5"),
            ("amqp://h:5672/v", "amqp://h:5672/v"),
            ("amqp://u:secret@h", "amqp://u@h"),
            ("--uri=amqp://u:s@cr:et@h:1/v", "--uri=amqp://u@h:1/v"),
            ("lepus=amqp://u:secret@h:5672,pid=3", "lepus=amqp://u@h:5672,pid=3"),
            ("lepus=amqp://u:secret@h/%2F,pid=3", "lepus=amqp://u@h/%2F,pid=3"),
        ] {
            assert_eq!(without_password(word), expected);
        }
    }
}
