//! CPU time, memory and writes of a process, from `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// What a process has used at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in octets.
    pub resident_octets: u64,
    /// What it has written; `None` where the system does not tell us, as of processes of other users.
    pub written: Option<Written>,
}

/// What a process has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Octets that went to the page cache of a storage device, or past it to the device: what it will have to write.
    pub disk_octets: u64,
    /// Calls of `write` and its like, also to sockets; what io_uring does is none.
    pub calls: u64,
}

impl Written {
    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            disk_octets: self.disk_octets.saturating_sub(earlier.disk_octets),
            calls: self.calls.saturating_sub(earlier.calls),
        }
    }
}

/// What the process has used up to now; `None` where there is no such process, or it is hidden from us.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "ticks of years are far below 2^53")]
    let cpu_seconds = cpu_ticks(&stat)? as f64 / clock_ticks_per_second() as f64;
    let written = fs::read_to_string(format!("/proc/{pid}/io")).ok().and_then(|io| written(&io));
    Some(Usage { cpu_seconds, resident_octets: resident_octets(&status)?, written })
}

/// Fields 14 and 15 of `/proc/PID/stat`; the name, field 2, may hold blanks and brackets.
pub(super) fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn written(io: &str) -> Option<Written> {
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok();
    Some(Written { disk_octets: field("write_bytes:")?, calls: field("syscw:")? })
}

fn resident_octets(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let stat = "77 (a (b) c) S 1 77 77 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 3 0 100 1 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("77 (x) S 1"), None);
        assert_eq!(resident_octets("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident_octets("Name:\tx\n"), None);
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n";
        assert_eq!(written(io), Some(Written { disk_octets: 6, calls: 4 }));
        assert_eq!(written("wchar: 2\n"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        let own = usage(std::process::id()).expect("it is there");
        assert!(own.resident_octets > 0 && own.written.is_some());
        assert_eq!(usage(u32::MAX), None);
    }
}
