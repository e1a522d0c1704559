//! How much memory the rings of the shards lock, and rings that fit under the limit on locked memory.
//!
//! The kernel counts it by user, for processes without `CAP_IPC_LOCK`: the rings themselves (not in all versions) and
//! the disk buffers that are registered with them. Where it does not fit, an executor (glommio 0.9) either cannot be
//! made or goes without registered buffers, whichever comes last. With the usual limit of 8 MiB and the largest rings
//! that happens from the sixth shard on.

use crate::server::start_error::StartError;

/// A kernel's major and minor number.
pub type KernelVersion = (u32, u32);

/// The rings of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlan {
    /// Entries in each submission queue.
    pub depth: usize,
    /// Memory for disk buffers, in octets.
    pub io_memory_octets: usize,
}

/// Rings where memory may be locked freely.
///
/// As deep as they are so that the executor's throughput timer does not fire in a burst of completions.
const LARGEST: RingPlan = RingPlan { depth: 4096, io_memory_octets: 1 << 20 };
/// Rings below which it is better not to start. The executor takes no less for disk buffers.
const SMALLEST: RingPlan = RingPlan { depth: 1024, io_memory_octets: 64 << 10 };

/// Rings of each executor: main, latency and poll. Disk buffers are registered with each.
const RINGS_PER_SHARD: usize = 3;
/// What the executor demands of the limit, even for a process that may lock freely, in octets.
const LIMIT_OCTETS_MIN: u64 = 512 << 10;
const PAGE_OCTETS: usize = 4096;

/// From 5.12 on a kernel counts rings as memory of their control group and not as locked memory ...
const RINGS_UNCOUNTED_FROM: KernelVersion = (5, 12);
/// ... until 6.14, which counts them as locked memory again.
const RINGS_COUNTED_AGAIN_FROM: KernelVersion = (6, 14);

const _: () = assert!(SMALLEST.depth.is_power_of_two() && SMALLEST.depth < LARGEST.depth);
const _: () = assert!(SMALLEST.io_memory_octets.is_power_of_two());
const _: () = assert!(SMALLEST.io_memory_octets < LARGEST.io_memory_octets);

impl RingPlan {
    /// What a shard with these rings locks, in octets, as `kernel` counts it.
    fn locked_octets(self, kernel: KernelVersion) -> u64 {
        (RINGS_PER_SHARD * (ring_octets(self.depth, kernel) + self.io_memory_octets)) as u64
    }
}

/// What one ring locks: entries of 64 octets, and one block with a header, the submission array (4 octets for each
/// entry) and twice as many completions (16 octets each).
fn ring_octets(depth: usize, kernel: KernelVersion) -> usize {
    let parts = [depth * 64, 320 + depth * 4 + 2 * depth * 16];
    if kernel >= RINGS_COUNTED_AGAIN_FROM {
        parts.iter().map(|octets| octets.next_multiple_of(PAGE_OCTETS)).sum()
    } else if kernel >= RINGS_UNCOUNTED_FROM {
        0
    } else {
        parts.iter().map(|octets| octets.next_power_of_two()).sum()
    }
}

/// The largest rings with which `shards` take at most half of the locked memory; the other half is left to more
/// programs of the same user. Where even the smallest do not, these may take all of it.
///
/// `raise` is asked for the octets that would be best and answers with those that may be locked, `None` for any number.
///
/// # Errors
/// Where too little may be locked even for the smallest rings.
pub fn plan_rings(
    shards: usize,
    kernel: KernelVersion,
    may_lock_freely: bool,
    raise: impl FnOnce(u64) -> Option<u64>,
) -> Result<RingPlan, StartError> {
    let needed = |plan: RingPlan| if may_lock_freely { 0 } else { plan.locked_octets(kernel) * shards as u64 };
    let best_octets = (2 * needed(LARGEST)).max(LIMIT_OCTETS_MIN);
    let Some(allowed_octets) = raise(best_octets) else { return Ok(LARGEST) };

    if allowed_octets < LIMIT_OCTETS_MIN || allowed_octets < needed(SMALLEST) {
        // Without the executor's minimum there can be no shard at all.
        let fitting =
            if allowed_octets < LIMIT_OCTETS_MIN { 0 } else { allowed_octets / SMALLEST.locked_octets(kernel) };
        return Err(StartError::LockedMemory {
            shards,
            needed_octets: needed(SMALLEST).max(LIMIT_OCTETS_MIN),
            allowed_octets,
            shards_possible: usize::try_from(fitting).expect("fewer than the shards that were asked for"),
        });
    }
    let fits = |plan: &RingPlan| needed(*plan) <= allowed_octets / 2;
    Ok(descending().find(fits).unwrap_or(SMALLEST))
}

/// All plans from the largest to the smallest. Deep rings matter more than disk buffers.
fn descending() -> impl Iterator<Item = RingPlan> {
    let halves =
        |from: usize, to: usize| std::iter::successors(Some(from), |n| Some(n / 2)).take_while(move |&n| n >= to);
    halves(LARGEST.depth, SMALLEST.depth).flat_map(move |depth| {
        halves(LARGEST.io_memory_octets, SMALLEST.io_memory_octets)
            .map(move |io_memory_octets| RingPlan { depth, io_memory_octets })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: KernelVersion = RINGS_COUNTED_AGAIN_FROM;
    const MIDDLE: KernelVersion = RINGS_UNCOUNTED_FROM;
    const OLD: KernelVersion = (5, 11);
    /// The limit that distributions set.
    const USUAL_OCTETS: u64 = 8 << 20;

    /// Plans under a limit that cannot be raised.
    fn plan(shards: usize, kernel: KernelVersion, allowed_octets: u64) -> Result<RingPlan, StartError> {
        plan_rings(shards, kernel, false, |_| Some(allowed_octets))
    }

    fn check(shards: usize, kernel: KernelVersion, depth: usize, io_memory_kib: usize) {
        let expected = RingPlan { depth, io_memory_octets: io_memory_kib << 10 };
        assert_eq!(plan(shards, kernel, USUAL_OCTETS).expect("fits"), expected, "{shards} shards on {kernel:?}");
    }

    /// Goal: the count agrees with kernel 6.18, where an unprivileged process with 8 MiB could make 5 executors with
    /// rings of 4096, 10 of 2048 and 16 of 1024, with the smallest disk buffers, and not one more.
    /// Method: divide.
    #[test]
    fn count_agrees_with_the_kernel() {
        for (depth, executors) in [(4096, 5), (2048, 10), (1024, 16)] {
            let locked = RingPlan { depth, ..SMALLEST }.locked_octets((6, 18));
            assert_eq!(USUAL_OCTETS / locked, executors, "rings of {depth}");
        }
    }

    /// Goal: rings are as large as half of the limit allows, depth first. Method: more and more shards, each kernel.
    #[test]
    fn rings_shrink_to_fit_half_of_the_limit() {
        check(1, NEW, 4096, 512);
        check(2, NEW, 4096, 256);
        check(3, NEW, 2048, 128);
        check(8, NEW, 1024, 64);
        check(1, MIDDLE, 4096, 1024);
        check(8, MIDDLE, 4096, 128);
        check(2, OLD, 4096, 128);
        check(14, OLD, 1024, 64);
    }

    /// Goal: no limit and no counting give the largest rings. Method: many shards under each.
    #[test]
    fn largest_rings_where_memory_may_be_locked_freely() {
        assert_eq!(plan_rings(256, NEW, false, |_| None).expect("no limit"), LARGEST);
        assert_eq!(plan_rings(256, NEW, true, |_| Some(LIMIT_OCTETS_MIN)).expect("privileged"), LARGEST);
    }

    /// Goal: where even the smallest rings do not fit, the error says how many shards would.
    /// Method: the last number of shards that fits and the first that does not, and the executor's own minimum.
    #[test]
    fn too_little_locked_memory() {
        for (kernel, fitting) in [(NEW, 16), (MIDDLE, 42), (OLD, 14)] {
            assert_eq!(plan(fitting, kernel, USUAL_OCTETS).expect("fits"), SMALLEST);
            match plan(fitting + 1, kernel, USUAL_OCTETS) {
                Err(StartError::LockedMemory { shards_possible, .. }) => {
                    assert_eq!(shards_possible, fitting, "{kernel:?}");
                }
                other => panic!("{kernel:?}: {other:?}"),
            }
        }
        let below = plan_rings(1, MIDDLE, true, |_| Some(LIMIT_OCTETS_MIN - 1));
        assert!(matches!(below, Err(StartError::LockedMemory { shards_possible: 0, .. })), "{below:?}");
    }

    /// Goal: the limit is raised so that the largest rings take half of it. Method: look at what is asked for.
    #[test]
    fn limit_is_raised_for_the_largest_rings() {
        let mut asked = 0;
        let planned = plan_rings(4, NEW, false, |octets| {
            asked = octets;
            Some(octets)
        });
        assert_eq!((planned.expect("raised"), asked), (LARGEST, 2 * 4 * 3 * ((404 << 10) + (1 << 20))));
    }
}
