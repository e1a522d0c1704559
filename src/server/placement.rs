//! How many shards there are and on which core each runs.

use crate::server::config::{SHARDS_MAX, ServeOptions};
use crate::server::core_list;
use crate::server::machine::Machine;
use crate::server::start_error::StartError;

/// One entry for each shard: the core that it is pinned to, `None` where the kernel may move it about. Never empty.
///
/// Where nothing is asked for, there is a shard for each available core, pinned to it. A CPU quota below that leaves
/// fewer shards, unpinned: a quota says how much time there is but not where, and other containers would pin theirs
/// to the same first cores.
///
/// # Errors
/// Where a core is asked for that the process may not use.
pub fn place_shards(options: &ServeOptions, machine: &Machine) -> Result<Vec<Option<usize>>, StartError> {
    assert!(!machine.cores.is_empty(), "a process without cores");
    if let Some(list) = &options.cores {
        let cores = list.as_slice();
        if let Some(&core) = cores.iter().find(|core| !machine.cores.contains(core)) {
            return Err(StartError::CoreNotAvailable { core, available: machine.cores.clone() });
        }
        let shards = options.shards.map_or(cores.len(), usize::from).min(usize::from(SHARDS_MAX));
        return Ok(cores.iter().copied().cycle().take(shards).map(Some).collect());
    }
    let quota = machine.cpu_quota_cores.unwrap_or(usize::MAX);
    let affordable = machine.cores.len().min(quota).min(usize::from(SHARDS_MAX));
    let shards = options.shards.map_or(affordable, usize::from);
    if shards > machine.cores.len() || quota < machine.cores.len() {
        return Ok(vec![None; shards]);
    }
    Ok(machine.cores[..shards].iter().copied().map(Some).collect())
}

/// The placement as the banner tells it: `2, on cores 0, 1`.
pub fn placement_text(placement: &[Option<usize>]) -> String {
    let cores: Vec<usize> = placement.iter().copied().flatten().collect();
    match cores.len() {
        0 => format!("{}, not pinned to cores", placement.len()),
        1 => format!("1, on core {}", cores[0]),
        shards => format!("{shards}, on cores {}", core_list::join(&cores)),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::server::config::{Command, CommandLine};

    fn place(arguments: &[&str], cores: &[usize], quota: Option<usize>) -> Result<String, StartError> {
        let command_line = CommandLine::try_parse_from(["lepus"].iter().chain(arguments)).expect("accepted");
        let machine = Machine { cores: cores.to_vec(), cpu_quota_cores: quota, memory_octets: 1 << 30 };
        let Command::Serve(options) = command_line.into_command() else { panic!("no serving was asked for") };
        place_shards(&options, &machine).map(|placement| placement_text(&placement))
    }

    fn check(arguments: &[&str], cores: &[usize], quota: Option<usize>, expected: &str) {
        assert_eq!(place(arguments, cores, quota).expect("placed"), expected, "{arguments:?} on {cores:?}");
    }

    /// Goal: the number of shards and their cores follow from what is asked and what there is.
    /// Method: each combination, on both sides of the number of cores and of the quota.
    #[test]
    fn shards_are_placed() {
        check(&[], &[0, 1], None, "2, on cores 0, 1");
        check(&[], &[3], None, "1, on core 3");
        check(&[], &[0, 1, 2, 3], Some(4), "4, on cores 0, 1, 2, 3");
        check(&[], &[0, 1, 2, 3], Some(2), "2, not pinned to cores");
        check(&["--shards", "1"], &[4, 6], None, "1, on core 4");
        check(&["--shards", "2"], &[4, 6], None, "2, on cores 4, 6");
        check(&["--shards", "3"], &[4, 6], None, "3, not pinned to cores");
        check(&["--cores", "6,4"], &[4, 6], Some(1), "2, on cores 6, 4");
        check(&["--cores", "4,6", "--shards", "1"], &[4, 6], None, "1, on core 4");
        check(&["--cores", "4,6", "--shards", "3"], &[4, 6], None, "3, on cores 4, 6, 4");
    }

    /// Goal: a core that is not there is refused by name. Method: ask for one beside the available ones.
    #[test]
    fn unavailable_core_is_refused() {
        let refusal = place(&["--cores", "0-1"], &[0, 2], None).expect_err("core 1").to_string();
        assert!(refusal.starts_with("core 1 is not available") && refusal.contains("among 0, 2"), "{refusal}");
    }
}
