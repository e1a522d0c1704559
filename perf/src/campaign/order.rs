//! In which order runs are made, so that the drift of a shared machine hits all targets alike.

use crate::random::Random;

/// One run of a campaign, by the numbers of its scenario, its target and its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub scenario: usize,
    /// From 0.
    pub target: usize,
    /// From 0.
    pub round: u32,
}

/// Round by round; in each round scenario by scenario; each of these on every target once, in an order drawn anew.
pub fn interleaved(scenarios: usize, targets: usize, rounds: u32, seed: u64) -> Vec<Place> {
    let mut random = Random::new(seed);
    let mut places = Vec::new();
    for round in 0..rounds {
        for scenario in 0..scenarios {
            let mut order: Vec<usize> = (0..targets).collect();
            for last in (1..targets).rev() {
                order.swap(last, random.below(last + 1));
            }
            places.extend(order.into_iter().map(|target| Place { scenario, target, round }));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every scenario runs on every target once in each round, and rounds do not mix.
    #[test]
    fn each_once_a_round() {
        let places = interleaved(3, 4, 5, 7);
        assert_eq!(places.len(), 3 * 4 * 5);
        for (index, chunk) in places.chunks(4).enumerate() {
            let mut targets: Vec<usize> = chunk.iter().map(|place| place.target).collect();
            targets.sort_unstable();
            assert_eq!(targets, [0, 1, 2, 3]);
            let expected = (u32::try_from(index / 3).expect("small"), index % 3);
            assert!(chunk.iter().all(|place| (place.round, place.scenario) == expected), "{chunk:?}");
        }
    }

    /// Goal: over many rounds no target is always first, and the same seed gives the same order.
    #[test]
    fn orders_are_drawn() {
        let firsts = |seed| interleaved(1, 2, 1000, seed).chunks(2).filter(|chunk| chunk[0].target == 0).count();
        assert!((400..600).contains(&firsts(1)), "{}", firsts(1));
        assert_eq!(interleaved(2, 5, 10, 3), interleaved(2, 5, 10, 3));
        assert_ne!(interleaved(2, 5, 10, 3), interleaved(2, 5, 10, 4));
    }
}
