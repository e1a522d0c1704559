//! The search for the highest rate that is kept: which rate to try next. Pure; the sweep makes the runs.
//!
//! First the ladder of rates, upwards, until one is missed; then halves of the gap (geometrically) between the highest
//! kept and the lowest missed. Shared machines hiccup: a rate counts as missed only when it was missed twice, or by
//! far, and as the highest only when it was kept twice.

/// A rate is missed, or the highest, when so many trials say so.
const TRIALS_TO_DECIDE: u32 = 2;

/// What one trial of a rate has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was kept.
    Kept,
    /// It was missed.
    Missed,
    /// It was missed by so much that another trial would tell nothing.
    FarBeyond,
}

/// The search so far.
#[derive(Clone, Debug)]
pub struct Search {
    ladder: Vec<f64>,
    /// The gap between kept and missed is closed when it is at most this part of the kept rate.
    precision: f64,
    /// Rates of the gap that may be tried.
    bisections_left: u32,
    /// In ascending order.
    rates: Vec<Tried>,
}

/// A rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tried {
    rate: f64,
    kept: u32,
    missed: u32,
    is_far_beyond: bool,
}

impl Tried {
    fn is_missed(&self) -> bool {
        self.is_far_beyond || self.missed >= TRIALS_TO_DECIDE
    }

    /// It was kept more often than not, if not yet often enough to be believed.
    fn is_kept(&self) -> bool {
        !self.is_missed() && self.kept > self.missed
    }

    /// One trial more decides.
    fn is_open(&self) -> bool {
        !self.is_missed() && !self.is_kept()
    }
}

impl Search {
    /// Over these rates, which are sorted, and up to `bisections_max` rates between two of them.
    ///
    /// # Panics
    /// Where there is no rate, or one is not above 0.
    pub fn new(mut ladder: Vec<f64>, precision: f64, bisections_max: u32) -> Self {
        assert!(!ladder.is_empty() && ladder.iter().all(|&rate| rate > 0.0), "rates are above 0");
        ladder.sort_unstable_by(f64::total_cmp);
        ladder.dedup();
        Self { ladder, precision, bisections_left: bisections_max, rates: Vec::new() }
    }

    /// The rate to try next; `None` at the end of the search.
    pub fn poll_rate(&mut self) -> Option<f64> {
        if let Some(open) = self.rates.iter().find(|tried| tried.is_open()) {
            return Some(open.rate);
        }
        let missed = self.lowest_missed();
        let kept = self.highest_kept_below(missed);
        if missed.is_none()
            && let Some(&next) = self.ladder.iter().find(|&&rate| kept.is_none_or(|kept| rate > kept.rate))
        {
            return Some(next);
        }
        let kept = kept?;
        if let Some(missed) = missed
            && missed > kept.rate * (1.0 + self.precision)
            && self.bisections_left > 0
        {
            self.bisections_left -= 1;
            return Some(round_rate((kept.rate * missed).sqrt(), kept.rate, missed));
        }
        (kept.kept < TRIALS_TO_DECIDE).then_some(kept.rate)
    }

    /// What the trial of `rate` has shown.
    pub fn handle_verdict(&mut self, rate: f64, verdict: Verdict) {
        let at = self.rates.partition_point(|tried| tried.rate < rate);
        if self.rates.get(at).is_none_or(|tried| tried.rate > rate) {
            self.rates.insert(at, Tried { rate, kept: 0, missed: 0, is_far_beyond: false });
        }
        let tried = &mut self.rates[at];
        match verdict {
            Verdict::Kept => tried.kept += 1,
            Verdict::Missed => tried.missed += 1,
            Verdict::FarBeyond => tried.is_far_beyond = true,
        }
    }

    /// The highest rate that was kept, below all that were missed; `None` where there is none.
    pub fn highest(&self) -> Option<f64> {
        self.highest_kept_below(self.lowest_missed()).map(|tried| tried.rate)
    }

    /// Whether even the highest rate of the ladder was kept, so that the limit is not known.
    pub fn is_limit_unknown(&self) -> bool {
        self.lowest_missed().is_none()
    }

    fn lowest_missed(&self) -> Option<f64> {
        self.rates.iter().find(|tried| tried.is_missed()).map(|tried| tried.rate)
    }

    fn highest_kept_below(&self, missed: Option<f64>) -> Option<Tried> {
        let is_below = |tried: &&Tried| missed.is_none_or(|missed| tried.rate < missed);
        self.rates.iter().filter(is_below).rfind(|tried| tried.is_kept()).copied()
    }
}

/// To three digits where that stays between the two, so that tables read well.
fn round_rate(rate: f64, above: f64, below: f64) -> f64 {
    let unit = 10_f64.powf(rate.log10().floor() - 2.0);
    let rounded = (rate / unit).round() * unit;
    if rounded > above && rounded < below { rounded } else { rate }
}

/// Rates from `from` up to `to` with `factor` between them; `to` itself is the last.
///
/// # Errors
/// A sentence for the user.
pub fn ladder(from: f64, to: f64, factor: f64) -> Result<Vec<f64>, String> {
    const RATES_MAX: usize = 1000;
    if !(from > 0.0 && to >= from && to.is_finite()) {
        return Err("--from: above 0, and --to not below it".to_owned());
    }
    if !(factor > 1.0 && factor.is_finite()) {
        return Err("--factor: more than 1".to_owned());
    }
    let mut rates = vec![from];
    while let Some(next) = rates.last().map(|rate| rate * factor).filter(|&next| next < to * 0.999) {
        if rates.len() == RATES_MAX {
            return Err(format!("--factor: more than {RATES_MAX} rates would lie between --from and --to"));
        }
        rates.push(round_rate(next, rates[rates.len() - 1], to));
    }
    if to > from {
        rates.push(to);
    }
    Ok(rates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Runs a search against a judge; the rates in the order of their trials, and the result.
    fn search(mut search: Search, mut judge: impl FnMut(f64) -> Verdict) -> (Vec<f64>, Option<f64>) {
        let mut trials = Vec::new();
        while let Some(rate) = search.poll_rate() {
            trials.push(rate);
            assert!(trials.len() < 200, "no end: {trials:?}");
            let verdict = judge(rate);
            search.handle_verdict(rate, verdict);
        }
        (trials, search.highest())
    }

    /// An M/M/1 queue that serves `capacity` messages a second: p99 of its sojourn time is ln(100) / (capacity - rate).
    fn single_server(rate: f64, capacity: f64, p99_seconds_max: f64) -> Verdict {
        if rate > capacity * 1.2 {
            Verdict::FarBeyond
        } else if rate < capacity && 100_f64.ln() / (capacity - rate) < p99_seconds_max {
            Verdict::Kept
        } else {
            Verdict::Missed
        }
    }

    #[test]
    fn ladders() {
        assert_eq!(ladder(1000.0, 8000.0, 2.0), Ok(vec![1000.0, 2000.0, 4000.0, 8000.0]));
        assert_eq!(ladder(1000.0, 5000.0, 2.0), Ok(vec![1000.0, 2000.0, 4000.0, 5000.0]));
        assert_eq!(ladder(7.0, 7.0, 2.0), Ok(vec![7.0]));
        for (from, to, factor) in [(0.0, 1.0, 2.0), (2.0, 1.0, 2.0), (1.0, 2.0, 1.0), (f64::NAN, 2.0, 2.0)] {
            assert!(ladder(from, to, factor).is_err());
        }
        assert!(ladder(1.0, 1e9, 1.001).is_err());
    }

    /// Goal: without noise the result is the limit to the precision, from below, for every capacity.
    #[test]
    fn a_quiet_server() {
        for capacity in (20..=900).map(|step| f64::from(step) * 1100.0) {
            let limit = capacity - 100_f64.ln() / 0.005;
            let rates = ladder(10_000.0, 1_000_000.0, 2.0).expect("a ladder");
            let (trials, highest) = search(Search::new(rates, 0.05, 8), |rate| single_server(rate, capacity, 0.005));
            let highest = highest.expect("the lowest rate is kept");
            assert!(highest <= limit && highest * 1.051 >= limit, "{highest}, not {limit}: {trials:?}");
            assert!(trials.len() < 20, "{trials:?}");
        }
    }

    /// Goal: where one trial in twelve errs either way, the result is still near the limit nearly always.
    /// Method: two hundred seeds, of which ninety in a hundred must be within a fifth of it.
    #[test]
    fn a_noisy_server() {
        let (capacity, mut near) = (100_000.0, 0);
        let limit = capacity - 100_f64.ln() / 0.005;
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let rates = ladder(10_000.0, 640_000.0, 2.0).expect("a ladder");
            let (_, highest) = search(Search::new(rates, 0.05, 8), |rate| {
                match (single_server(rate, capacity, 0.005), random.below(12)) {
                    (Verdict::Kept, 0) => Verdict::Missed,
                    (Verdict::Missed, 0) => Verdict::Kept,
                    (verdict, _) => verdict,
                }
            });
            near += u32::from(highest.is_some_and(|highest| (highest / limit - 1.0).abs() < 0.2));
        }
        assert!(near >= 180, "{near} of 200");
    }

    /// Goal: a server whose latency itself is random, as an M/M/1 queue's in a short run is.
    /// Method: the measured p99 is off by up to a third either way; far from its limit that must not matter.
    #[test]
    fn a_server_with_random_latency() {
        let capacity = 50_000.0;
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let rates = ladder(1000.0, 512_000.0, 2.0).expect("a ladder");
            let (trials, highest) = search(Search::new(rates, 0.02, 10), |rate| {
                single_server(rate, capacity, 0.005 / (2.0 / 3.0 + random.unit() * 2.0 / 3.0))
            });
            // A third more or less of 921 messages a second, which the objective costs.
            let highest = highest.expect("kept");
            assert!((47_000.0..50_000.0).contains(&highest), "{highest}: {trials:?}");
        }
    }

    /// Goal: one hiccup neither ends the ladder nor lowers the result.
    #[test]
    fn one_hiccup_is_tried_again() {
        let mut hiccups: Vec<f64> = vec![2000.0];
        let (trials, highest) = search(Search::new(vec![1000.0, 2000.0, 4000.0], 0.05, 4), |rate| {
            match hiccups.iter().position(|&bad| bad.total_cmp(&rate).is_eq()) {
                Some(at) => {
                    hiccups.remove(at);
                    Verdict::Missed
                }
                None => Verdict::Kept,
            }
        });
        assert_eq!(trials, [1000.0, 2000.0, 2000.0, 2000.0, 4000.0, 4000.0]);
        assert_eq!(highest, Some(4000.0));
    }

    /// Goal: a rate far beyond is tried once; nothing kept is no result; all kept leaves the limit unknown.
    #[test]
    fn the_ends() {
        let (trials, highest) = search(Search::new(vec![1.0, 2.0], 0.05, 4), |_| Verdict::FarBeyond);
        assert_eq!((trials, highest), (vec![1.0], None));
        let (trials, highest) = search(Search::new(vec![1.0, 2.0], 0.05, 4), |_| Verdict::Missed);
        assert_eq!((trials, highest), (vec![1.0, 1.0], None));
        let mut all = Search::new(vec![2.0, 1.0, 2.0], 0.05, 4);
        for expected in [1.0, 2.0, 2.0] {
            assert_eq!(all.poll_rate(), Some(expected));
            all.handle_verdict(expected, Verdict::Kept);
        }
        assert_eq!((all.poll_rate(), all.highest(), all.is_limit_unknown()), (None, Some(2.0), true));
    }

    /// Goal: a highest rate that does not hold a second time gives way to the next lower one.
    #[test]
    fn the_winner_is_tried_again() {
        let mut trials_at_two = 0;
        let (trials, highest) = search(Search::new(vec![1.0, 2.0], 0.05, 0), |rate| {
            trials_at_two += u32::from(rate > 1.5);
            if rate > 1.5 && trials_at_two > 1 { Verdict::Missed } else { Verdict::Kept }
        });
        assert_eq!((trials, highest), (vec![1.0, 2.0, 2.0, 2.0, 1.0], Some(1.0)));
    }
}
