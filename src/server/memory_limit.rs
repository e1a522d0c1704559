//! How much memory `--memory-limit` allows, and sizes in octets as people read and write them.

use std::fmt;
use std::str::FromStr;

/// Where publishers are paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// A share of the memory that the process may use, in percent: 1 to 100.
    Percent(u8),
    /// A size in octets, not zero.
    Octets(u64),
}

impl MemoryLimit {
    /// The limit in octets, where the process may use `memory_octets`.
    pub fn octets(self, memory_octets: u64) -> u64 {
        match self {
            MemoryLimit::Octets(octets) => octets,
            // Divided first: the product could overflow. What is lost is less than 100 octets.
            MemoryLimit::Percent(percent) => memory_octets / 100 * u64::from(percent),
        }
    }
}

/// Powers of 1024 and of 1000, with their names.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for MemoryLimit {
    type Err = String;

    /// Reads `60%`, `512MiB`, `4GB` or plain octets. Units are read in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = (&text[..digits], text[digits..].trim());
        let number: u64 = number
            .parse()
            .map_err(|_| format!("'{text}' is not a share or a size; write '60%', '512MiB', '4GB' or plain octets"))?;
        if unit == "%" {
            return match u8::try_from(number) {
                Ok(percent @ 1..=100) => Ok(MemoryLimit::Percent(percent)),
                _ => Err(format!("{number}% is not a share of the memory; it must be from 1% to 100%")),
            };
        }
        let factor = match unit {
            "" => 1,
            _ => UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|&(_, factor)| factor)
                .ok_or_else(|| format!("'{unit}' is not a unit; use %, kB, MB, GB, TB, KiB, MiB, GiB or TiB"))?,
        };
        match number.checked_mul(factor) {
            Some(0) => Err("a memory limit of nothing would pause every publisher for ever".to_owned()),
            Some(octets) => Ok(MemoryLimit::Octets(octets)),
            None => Err(format!("'{text}' is more than a 64-bit number of octets can say")),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryLimit::Percent(percent) => write!(f, "{percent}%"),
            MemoryLimit::Octets(octets) => write!(f, "{octets}"),
        }
    }
}

/// A size in octets in the largest binary unit that it fills, with one decimal: `14.1 GiB`.
pub fn size_text(octets: u64) -> String {
    let unit = UNITS[..4].iter().rev().find(|&&(_, factor)| octets >= factor);
    match unit {
        Some((name, factor)) => {
            // Tenths by integers, rounded down; both parts of the sum stay far below 2^64.
            let tenths = octets / factor * 10 + octets % factor * 10 / factor;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{octets} octets"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, limit: MemoryLimit) {
        assert_eq!(text.parse(), Ok(limit), "{text:?}");
    }

    fn check_refused(text: &str, part: &str) {
        let reason = text.parse::<MemoryLimit>().expect_err(text);
        assert!(reason.contains(part), "{text:?}: {reason}");
    }

    /// Goal: every form is read. Method: one of each, and both ends of the share.
    #[test]
    fn shares_and_sizes_are_read() {
        check("60%", MemoryLimit::Percent(60));
        check("1%", MemoryLimit::Percent(1));
        check("100 %", MemoryLimit::Percent(100));
        check("512MiB", MemoryLimit::Octets(512 << 20));
        check("4GB", MemoryLimit::Octets(4_000_000_000));
        check("4 gb", MemoryLimit::Octets(4_000_000_000));
        check("2TiB", MemoryLimit::Octets(2 << 40));
        check("1048576", MemoryLimit::Octets(1 << 20));
        check("18446744073709551615", MemoryLimit::Octets(u64::MAX));
    }

    /// Goal: each mistake is named. Method: one of each, and the first values beyond the limits.
    #[test]
    fn mistakes_are_named() {
        check_refused("", "not a share or a size");
        check_refused("lots", "'lots' is not a share or a size");
        check_refused("-1", "not a share or a size");
        check_refused("1.5GiB", "'.5GiB' is not a unit");
        check_refused("4GX", "'GX' is not a unit");
        check_refused("0%", "from 1% to 100%");
        check_refused("101%", "from 1% to 100%");
        check_refused("0", "pause every publisher");
        check_refused("0MiB", "pause every publisher");
        check_refused("18446744073709551616", "not a share or a size");
        check_refused("16777216TiB", "64-bit");
    }

    /// Goal: a share is taken of what there is, a size is itself. Method: compute both, with the largest memory too.
    #[test]
    fn limit_in_octets() {
        assert_eq!(MemoryLimit::Percent(60).octets(1000), 600);
        assert_eq!(MemoryLimit::Octets(7).octets(1000), 7);
        assert_eq!(MemoryLimit::Percent(100).octets(u64::MAX), u64::MAX / 100 * 100);
    }

    /// Goal: sizes read well. Method: both sides of the first unit and of a tenth, a fraction, the largest number.
    #[test]
    fn sizes_read_well() {
        assert_eq!(size_text(1023), "1023 octets");
        assert_eq!(size_text(1024), "1.0 KiB");
        assert_eq!(size_text(15_139_759_718), "14.0 GiB");
        assert_eq!(size_text(15_139_759_719), "14.1 GiB");
        assert_eq!(size_text(3 << 19), "1.5 MiB");
        assert_eq!(size_text(u64::MAX), "16777215.9 TiB");
    }
}
