//! CPU time and memory of a process, from `/proc`.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// What a process has used at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// Resident memory, in octets.
    pub resident_octets: u64,
}

/// What the process has used up to now; `None` where there is no such process, or it is hidden from us.
pub fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    #[allow(clippy::cast_precision_loss, reason = "ticks of years are far below 2^53")]
    let cpu_seconds = cpu_ticks(&stat)? as f64 / clock_ticks_per_second() as f64;
    Some(Usage { cpu_seconds, resident_octets: resident_octets(&status)? })
}

/// Fields 14 and 15 of `/proc/PID/stat`; the name, field 2, may hold blanks and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(") ")?;
    let mut fields = behind_name.split(' ').skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
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
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).is_some_and(|usage| usage.resident_octets > 0));
        assert_eq!(usage(u32::MAX), None);
    }
}
