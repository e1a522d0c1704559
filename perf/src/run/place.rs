//! Where broker and load generator run: which process is the broker, and whether they take each other's cores.

use crate::engine::client::Endpoint;
use crate::machine::broker_process::listener;
use crate::machine::siblings;

/// The broker's process, where it is one, and on this machine.
pub fn broker_process(endpoints: &[Endpoint]) -> Option<u32> {
    let listeners: Vec<Option<u32>> = endpoints.iter().map(|endpoint| listener(endpoint.address)).collect();
    the_only_one(&listeners)
}

/// The process behind all addresses; `None` where there are several, of which one would tell only a part.
fn the_only_one(listeners: &[Option<u32>]) -> Option<u32> {
    let (first, others) = listeners.split_first()?;
    first.filter(|_| others.iter().all(|other| other == first))
}

/// What a reader should know of the cores of both; nothing where they are apart.
pub fn warning(client: &[usize], broker: &[usize]) -> Option<String> {
    shared_cores(client, broker, siblings)
}

/// What to say of cores on which both may run, or whose hyperthreads they share.
fn shared_cores(client: &[usize], broker: &[usize], siblings: impl Fn(usize) -> Vec<usize>) -> Option<String> {
    let (same, others): (Vec<usize>, Vec<usize>) = client.iter().partition(|core| broker.contains(core));
    if !same.is_empty() {
        return Some(format!("load generator and broker may both run on cores {same:?}: pin them apart"));
    }
    let is_twin = |core: &usize| siblings(*core).iter().any(|other| broker.contains(other));
    let twins: Vec<usize> = others.into_iter().filter(is_twin).collect();
    (!twins.is_empty()).then(|| {
        format!("cores {twins:?} of the load generator are hyperthreads of the broker's ones, and slow them down: pin it elsewhere")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: shared cores are told, and hyperthreads of one core like them; cores apart are not.
    #[test]
    fn cores_that_are_shared() {
        let pairs = |core: usize| vec![core % 4, core % 4 + 4];
        let told = |client: &[usize], broker: &[usize]| shared_cores(client, broker, pairs).unwrap_or_default();
        assert!(told(&[1, 2], &[2, 3]).contains("both run on cores [2]"));
        assert!(told(&[1, 2], &[6]).contains("cores [2] of the load generator are hyperthreads"));
        assert_eq!((told(&[1, 5], &[2, 6]), told(&[1], &[])), (String::new(), String::new()));
        assert!(siblings(0).contains(&0));
    }

    /// Goal: a process is the broker only where it is behind each of the addresses.
    #[test]
    fn one_process_behind_all_addresses() {
        assert_eq!(the_only_one(&[Some(5)]), Some(5));
        assert_eq!(the_only_one(&[Some(5), Some(5)]), Some(5));
        for several in [&[Some(5), Some(6)][..], &[Some(5), None], &[None, Some(5)], &[None, None], &[]] {
            assert_eq!(the_only_one(several), None, "{several:?}");
        }
    }
}
