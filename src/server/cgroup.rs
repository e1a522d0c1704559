//! What the control groups of the process allow it: memory and CPU time, in version 1 and 2 of the interface.
//!
//! All files are read below a root that is `/` but in tests. What cannot be read or understood limits nothing.

use std::fs;
use std::path::{Path, PathBuf};

/// The tightest limits among the process's own group and all groups above it; `None` where there is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory, in octets.
    pub memory_octets: Option<u64>,
    /// CPU time, in whole cores, rounded up.
    pub cpu_cores: Option<usize>,
}

/// Reads the limits that hold for this process.
pub fn limits(root: &Path) -> CgroupLimits {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = read("proc/self/cgroup");
    let mut limits = CgroupLimits::default();
    for mount in read("proc/self/mountinfo").lines().filter_map(Mount::parse) {
        for group in mount.own_groups(root, &groups) {
            limits.memory_octets = tighter(limits.memory_octets, memory_octets(&group));
            limits.cpu_cores = tighter(limits.cpu_cores, cpu_cores(&group));
        }
    }
    limits
}

fn tighter<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// One mounted hierarchy that can limit memory or CPU time.
struct Mount<'a> {
    /// The group that is mounted: `/`, or the container's.
    root: &'a str,
    point: &'a str,
    /// The controllers of a version 1 hierarchy; `None` is version 2.
    controllers: Option<&'a str>,
}

impl<'a> Mount<'a> {
    /// Reads a line of `/proc/self/mountinfo` (proc(5)); `None` where it is not a control group hierarchy.
    fn parse(line: &'a str) -> Option<Mount<'a>> {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let controllers = match kind.next()? {
            "cgroup2" => None,
            "cgroup" => Some(kind.nth(1)?),
            _ => return None,
        };
        Some(Mount { root, point, controllers })
    }

    /// The directories of the process's own group and of all above it that can be seen.
    fn own_groups(&self, file_root: &Path, groups: &str) -> Vec<PathBuf> {
        let is_own = |controllers: &str| match self.controllers {
            None => controllers.is_empty(),
            Some(mounted) => controllers.split(',').any(|one| !one.is_empty() && mounted.split(',').any(|m| m == one)),
        };
        let path = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_own(controllers).then_some(path)
        });
        let Some(path) = path else { return Vec::new() };
        // In a container the path may be told from the host's root while only the container's group is mounted.
        let below = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        let point = file_root.join(self.point.trim_start_matches('/'));
        below.ancestors().map(|group| point.join(group)).collect()
    }
}

fn read_number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// `max`, in version 2, is not a number and so no limit; version 1 says it with a number beyond any memory.
fn memory_octets(group: &Path) -> Option<u64> {
    tighter(read_number(group, "memory.max"), read_number(group, "memory.limit_in_bytes"))
}

fn cpu_cores(group: &Path) -> Option<usize> {
    let (quota, period) = match fs::read_to_string(group.join("cpu.max")) {
        Ok(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse::<u64>().ok()?, period.parse().ok()?)
        }
        Err(_) => (read_number(group, "cpu.cfs_quota_us")?, read_number(group, "cpu.cfs_period_us")?),
    };
    if period == 0 { None } else { usize::try_from(quota.div_ceil(period)).ok().map(|cores| cores.max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the files into a directory that stands for `/` and compares what is read.
    fn check(files: &[(&str, &str)], expected: &CgroupLimits) {
        let root = tempfile::tempdir().expect("temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            fs::write(path, text).expect("file");
        }
        assert_eq!(&limits(root.path()), expected, "{files:?}");
    }

    const MOUNT_V2: (&str, &str) =
        ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");

    /// Goal: no control groups, no limits. Method: an empty machine, and one that limits nothing.
    #[test]
    fn nothing_limits() {
        check(&[], &CgroupLimits::default());
        let group = ("proc/self/cgroup", "0::/\n");
        let unlimited = [("sys/fs/cgroup/memory.max", "max\n"), ("sys/fs/cgroup/cpu.max", "max 100000\n")];
        check(&[MOUNT_V2, group, unlimited[0], unlimited[1]], &CgroupLimits::default());
    }

    /// Goal: in version 2 the tightest group of the chain holds, and a quota rounds up.
    /// Method: memory is tightest in the middle, CPU time at the leaf.
    #[test]
    fn version_2_takes_the_tightest_of_the_chain() {
        check(
            &[
                MOUNT_V2,
                ("proc/self/cgroup", "0::/a.slice/b.service\n"),
                ("sys/fs/cgroup/a.slice/memory.max", "1000\n"),
                ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n"),
                ("sys/fs/cgroup/a.slice/cpu.max", "400000 100000\n"),
                ("sys/fs/cgroup/a.slice/b.service/cpu.max", "150000 100000\n"),
            ],
            &CgroupLimits { memory_octets: Some(1000), cpu_cores: Some(2) },
        );
    }

    /// Goal: version 1 in a container that sees the host's path and only its own group mounted.
    /// Method: two hierarchies, the mounted root being the group itself; a quota below one core.
    #[test]
    fn version_1_in_a_container() {
        let mounts = "32 31 0:29 /docker/c1 /sys/fs/cgroup/cpu rw master:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      35 31 0:32 /docker/c1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      36 31 0:33 / /proc rw - proc proc rw\n";
        check(
            &[
                ("proc/self/mountinfo", mounts),
                ("proc/self/cgroup", "5:memory:/docker/c1\n4:cpu,cpuacct:/docker/c1\n1:name=systemd:/x\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
            &CgroupLimits { memory_octets: Some(536_870_912), cpu_cores: Some(1) },
        );
    }

    /// Goal: version 1 without a quota has none. Method: the quota is -1.
    #[test]
    fn version_1_without_a_quota() {
        check(
            &[
                ("proc/self/mountinfo", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"),
                ("proc/self/cgroup", "4:cpu:/\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ],
            &CgroupLimits::default(),
        );
    }
}
