//! When which message is to be sent: the open loop.
//!
//! All producers together follow one [`Profile`], the rate over time. What they have sent by then is its integral; a process
//! of arrivals says at which values of it messages come. Times are in nanoseconds after the first message is to be sent.

use fastrand::Rng;

/// A rate over time: rows of constant rates and ramps; the last rate holds for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    segments: Vec<Segment>,
}

/// From one rate to another, in messages a second, within so many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Segment {
    start: f64,
    nanos: f64,
    from: f64,
    to: f64,
    /// Messages before it.
    before: f64,
}

/// How messages are spread within the rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// Evenly.
    Constant,
    /// As independent senders would: intervals are distributed exponentially.
    Poisson,
    /// So many at once.
    Burst(u64),
}

impl std::str::FromStr for Process {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "constant, poisson, or burst:MESSAGES";
        match text.split_once(':') {
            None if text == "constant" => Ok(Self::Constant),
            None if text == "poisson" => Ok(Self::Poisson),
            Some(("burst", size)) => size.parse().ok().filter(|&size| size > 0).map(Self::Burst).ok_or(FAULT),
            _ => Err(FAULT),
        }
    }
}

impl Profile {
    /// One rate, in messages a second.
    pub fn constant(rate: f64) -> Self {
        Self::of(&[(rate, rate, 0.0)])
    }

    /// Of rows of: first rate, last rate, seconds.
    fn of(rows: &[(f64, f64, f64)]) -> Self {
        let (mut start, mut before, mut segments) = (0.0, 0.0, Vec::new());
        for &(from, to, seconds) in rows {
            let nanos = seconds * 1e9;
            segments.push(Segment { start, nanos, from, to, before });
            start += nanos;
            before += f64::midpoint(from, to) * seconds;
        }
        Self { segments }
    }

    /// From one rate to another, evenly within so many seconds.
    pub fn ramp(from: f64, to: f64, seconds: f64) -> Self {
        Self::of(&[(from, to, seconds), (to, to, 0.0)])
    }

    /// With so many seconds of the first rate before it.
    #[must_use]
    pub fn after_warm_up(&self, seconds: f64) -> Self {
        let first = self.segments[0].from;
        let rows: Vec<_> =
            self.segments.iter().map(|segment| (segment.from, segment.to, segment.nanos / 1e9)).collect();
        Self::of(&[&[(first, first, seconds)], &rows[..]].concat())
    }

    /// How long it goes on changing, in seconds.
    pub fn seconds(&self) -> f64 {
        self.segments.iter().map(|segment| segment.nanos).sum::<f64>() / 1e9
    }

    /// Messages in that time.
    pub fn messages(&self) -> f64 {
        self.segments.iter().map(|segment| f64::midpoint(segment.from, segment.to) * segment.nanos / 1e9).sum()
    }

    /// When so many messages are sent, in nanoseconds.
    fn time_of(&self, messages: f64) -> f64 {
        let index = self.segments.partition_point(|segment| segment.before <= messages).max(1) - 1;
        let Segment { start, nanos, from, to, before } = self.segments[index];
        let (left, from, to) = (messages - before, from / 1e9, to / 1e9);
        if nanos == 0.0 || (to - from).abs() < f64::EPSILON * from {
            return start + left / from;
        }
        // The rate rises by `slope` a nanosecond: from * t + slope / 2 * t^2 = left.
        let slope = (to - from) / nanos;
        let root = (from * from + 2.0 * slope * left).max(0.0).sqrt();
        start + 2.0 * left / (from + root)
    }
}

impl std::str::FromStr for Profile {
    type Err = String;

    /// `1000@5s,1000-20000@10s`: a rate, or two with a ramp between them, for so many seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let row = |part: &str| {
            let fault = || format!("'{part}' is not RATE@SECONDS, as 1000@5s, nor FROM-TO@SECONDS");
            let (rates, seconds) = part.split_once('@').ok_or_else(fault)?;
            let number = |text: &str| {
                let number = text.trim().parse::<f64>().map_err(|_| fault())?;
                if number.is_finite() && number > 0.0 { Ok(number) } else { Err(fault()) }
            };
            let (from, to) = rates.split_once('-').unwrap_or((rates, rates));
            Ok((number(from)?, number(to)?, number(seconds.trim_end_matches('s'))?))
        };
        let rows = text.split(',').map(row).collect::<Result<Vec<_>, String>>()?;
        let &(_, last, _) = rows.last().expect("a split has a part");
        Ok(Self::of(&[&rows[..], &[(last, last, 0.0)]].concat()))
    }
}

/// The times of one producer's messages, one after the other.
#[derive(Clone, Debug)]
pub struct Arrivals {
    start: u64,
    next: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Profile {
        profile: Profile,
        process: Process,
        producers: u64,
        index: u64,
        number: u64,
        random: Rng,
        drawn: f64,
    },
    /// Offsets in nanoseconds; `u64::MAX` ends them.
    Trace(std::vec::IntoIter<u64>),
}

impl Arrivals {
    /// Of one among so many producers. Evenly spread messages and bursts are dealt out to producers in turn; under Poisson
    /// each draws its own.
    pub fn new(profile: Profile, process: Process, producers: u64, index: u64, seed: u64) -> Self {
        assert!(index < producers, "one of the producers");
        let random = Rng::with_seed(seed ^ (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self::of(Source::Profile { profile, process, producers, index, number: 0, random, drawn: 0.0 })
    }

    /// At these offsets, in nanoseconds; never thereafter.
    pub fn of_trace(offsets: Vec<u64>) -> Self {
        Self::of(Source::Trace(offsets.into_iter()))
    }

    fn of(mut source: Source) -> Self {
        Self { start: 0, next: source.next(), source }
    }

    /// The first message is to be sent at this time or after it.
    pub fn start_at(&mut self, nanos: u64) {
        self.start = nanos;
    }

    /// When the next message is to be sent; `u64::MAX` where there is none.
    #[inline]
    pub fn next(&self) -> u64 {
        self.start.saturating_add(self.next)
    }

    /// It is on its way.
    #[inline]
    pub fn advance(&mut self) {
        self.next = self.source.next();
    }
}

impl Source {
    #[inline]
    fn next(&mut self) -> u64 {
        match self {
            Self::Trace(offsets) => offsets.next().unwrap_or(u64::MAX),
            Self::Profile { profile, process, producers, index, number, random, drawn } => {
                let mine = *number * *producers + *index;
                *number += 1;
                let messages = match process {
                    Process::Constant => mine as f64,
                    Process::Burst(size) => (mine / *size * *size) as f64,
                    Process::Poisson => {
                        *drawn -= (1.0 - random.f64()).ln();
                        *drawn * *producers as f64
                    }
                };
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; years fit")]
                let nanos = profile.time_of(messages).round() as u64;
                nanos
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(profile: &Profile, process: Process, producers: u64, each: usize, seed: u64) -> Vec<u64> {
        let mut all = Vec::new();
        for index in 0..producers {
            let mut arrivals = Arrivals::new(profile.clone(), process, producers, index, seed);
            for _ in 0..each {
                all.push(arrivals.next());
                arrivals.advance();
            }
        }
        all.sort_unstable();
        all
    }

    fn mean_and_variance(times: &[u64]) -> (f64, f64) {
        let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        (mean, gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64)
    }

    /// Goal: each process has the mean of its rate, and its own variance: none, the mean's square, that of bursts.
    /// Method: 200,000 gaps at 20,000 a second, of one producer and of three together.
    #[test]
    fn mean_and_variance_of_processes() {
        let profile = Profile::constant(20_000.0);
        let check = |process, producers: u64, deviation: f64, tolerance: f64| {
            let each = 200_000 / usize::try_from(producers).expect("small");
            let (mean, variance) = mean_and_variance(&times(&profile, process, producers, each, 7));
            assert!((mean - 50_000.0).abs() < 50_000.0 * tolerance, "{process:?} of {producers}: mean {mean}");
            let found = variance.sqrt() / 50_000.0;
            assert!((found - deviation).abs() <= tolerance * deviation.max(1.0), "{process:?} of {producers}: {found}");
        };
        for producers in [1, 3] {
            check(Process::Constant, producers, 0.0, 0.001);
            // An estimate of 200,000 exponential gaps is within 1 % (four standard errors).
            check(Process::Poisson, producers, 1.0, 0.01);
            // A gap is 10 with probability 1/10, else 0: deviation 3.
            check(Process::Burst(10), producers, 3.0, 0.001);
        }
    }

    /// Goal: a seed gives the same times again, another seed others.
    #[test]
    fn seeds_reproduce() {
        let profile = Profile::constant(1000.0);
        let of = |seed| times(&profile, Process::Poisson, 2, 100, seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    /// Goal: counts follow the rate through steps and ramps.
    /// Method: messages in each part of the time, against the integral of the rate.
    #[test]
    fn profiles_are_followed() {
        let profile: Profile = "1000@2s,1000-3000@2s,500@1".parse().expect("well-formed");
        assert_eq!((profile.seconds(), profile.messages()), (5.0, 2000.0 + 4000.0 + 500.0));
        let all = times(&profile, Process::Constant, 1, 7000, 0);
        let count = |from: f64, to: f64| {
            all.iter().filter(|&&time| time as f64 >= from * 1e9 && (time as f64) < to * 1e9).count().cast_signed()
        };
        for (from, to, expected) in
            [(0.0, 1.0, 1000), (1.0, 2.0, 1000), (2.0, 3.0, 1500), (3.0, 4.0, 2500), (4.0, 5.0, 500), (5.0, 6.0, 500)]
        {
            assert!((count(from, to) - expected).abs() <= 1, "{from} to {to}: {}", count(from, to));
        }
        assert!((Profile::ramp(10.0, 30.0, 2.0).after_warm_up(1.0).messages() - 50.0).abs() < 1e-9);
        for text in ["", "5", "x@1", "5@0", "0@5", "5@1,", "5-@1"] {
            assert!(text.parse::<Profile>().is_err(), "{text}");
        }
    }

    /// Goal: a trace is played as it is written.
    #[test]
    fn traces_are_played() {
        let mut arrivals = Arrivals::of_trace(vec![5, 5, 9]);
        arrivals.start_at(100);
        for expected in [105, 105, 109, u64::MAX, u64::MAX] {
            assert_eq!(arrivals.next(), expected);
            arrivals.advance();
        }
    }
}
