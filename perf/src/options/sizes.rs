//! How large bodies are.

use fastrand::Rng;

use crate::engine::stamp::NUMBER_OCTETS;

/// Sizes that are drawn, or one. The smallest that comes out is that of a sequence number, 6.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Always this.
    Fixed(usize),
    /// Each between two, ends included, as often as any other.
    Uniform(usize, usize),
    /// Log-normal, by its median and the deviation of its logarithm.
    LogNormal(f64, f64),
    /// Some, each with its weight.
    Weighted(Vec<(usize, f64)>),
}

/// Larger ones are cut.
const OCTETS_MAX: usize = 128 << 20;

impl Sizes {
    /// The next one.
    pub fn draw(&self, random: &mut Rng) -> usize {
        let octets = match self {
            Self::Fixed(octets) => *octets,
            Self::Uniform(least, most) => random.usize(*least..=*most),
            Self::LogNormal(median, sigma) => {
                let (radius, angle) = ((-2.0 * (1.0 - random.f64()).ln()).sqrt(), random.f64() * std::f64::consts::TAU);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive; cut below")]
                let octets = (median * (sigma * radius * angle.cos()).exp()).round() as usize;
                octets
            }
            Self::Weighted(all) => {
                let sum: f64 = all.iter().map(|(_, weight)| weight).sum();
                let mut at = random.f64() * sum;
                let fits = |&&(_, weight): &&(usize, f64)| {
                    at -= weight;
                    at < 0.0
                };
                all.iter().find(fits).unwrap_or(&all[all.len() - 1]).0
            }
        };
        octets.clamp(NUMBER_OCTETS, OCTETS_MAX)
    }

    /// Whether all are the same.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Self::Fixed(_))
    }

    /// The smallest that can come.
    pub fn least(&self) -> usize {
        match self {
            Self::Fixed(octets) | Self::Uniform(octets, _) => *octets,
            Self::LogNormal(..) => NUMBER_OCTETS,
            Self::Weighted(all) => all.iter().map(|(octets, _)| *octets).min().unwrap_or(0),
        }
    }
}

impl std::str::FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault =
            || "a size is 16, uniform:16-1024, lognormal:MEDIAN,SIGMA, or sizes with weights: 16=90,4096=10".to_owned();
        let octets = |text: &str| match text.trim().parse::<usize>() {
            Ok(octets) if octets < NUMBER_OCTETS => {
                Err("at least 6 octets, for the sequence number that each body carries".to_owned())
            }
            Ok(octets) if octets <= OCTETS_MAX => Ok(octets),
            _ => Err(fault()),
        };
        let number = |text: &str| {
            text.trim().parse::<f64>().ok().filter(|number| *number > 0.0 && number.is_finite()).ok_or_else(fault)
        };
        if let Some(range) = text.strip_prefix("uniform:") {
            let (least, most) = range.split_once('-').ok_or_else(fault)?;
            let (least, most) = (octets(least)?, octets(most)?);
            return if least <= most { Ok(Self::Uniform(least, most)) } else { Err(fault()) };
        }
        if let Some(rest) = text.strip_prefix("lognormal:") {
            let (median, sigma) = rest.split_once(',').ok_or_else(fault)?;
            return Ok(Self::LogNormal(number(median)?, number(sigma)?));
        }
        if !text.contains(['=', ',']) {
            return Ok(Self::Fixed(octets(text)?));
        }
        let weighted = |part: &str| {
            let (size, weight) = part.split_once('=').unwrap_or((part, "1"));
            Ok((octets(size)?, number(weight)?))
        };
        Ok(Self::Weighted(text.split(',').map(weighted).collect::<Result<_, String>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Vec<usize> {
        let sizes: Sizes = text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let mut random = Rng::with_seed(3);
        let mut all: Vec<usize> = (0..100_000).map(|_| sizes.draw(&mut random)).collect();
        all.sort_unstable();
        all
    }

    /// Goal: sizes are distributed as they are asked for.
    /// Method: quantiles of 100,000 against the distribution's own.
    #[test]
    fn sizes_follow_their_distribution() {
        assert_eq!(drawn("77"), vec![77; 100_000]);
        let uniform = drawn("uniform:16-1015");
        assert_eq!((uniform[0], uniform[99_999]), (16, 1015));
        assert!(uniform[50_000].abs_diff(516) <= 10, "{}", uniform[50_000]);
        let normal = drawn("lognormal:1000,0.5");
        // One deviation above the median: 1000 * e^0.5 at 84.13 %.
        for (at, expected) in [(50_000, 1000), (84_134, 1649), (15_866, 607)] {
            assert!(normal[at].abs_diff(expected) * 50 <= expected, "{}", normal[at]);
        }
        let few = drawn("16=90,4096=10");
        assert!(few.iter().filter(|&&octets| octets == 4096).count().abs_diff(10_000) < 400);
        for text in ["", "5", "uniform:9-8", "uniform:9", "lognormal:5", "lognormal:-1,1", "16=0", "16=x", "x"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }
}
