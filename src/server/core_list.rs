//! The list of cores that `--cores` takes: `0,2-3`.

use std::fmt;
use std::str::FromStr;

/// The highest core number that may be named, plus one: the size of the kernel's classic CPU set.
const CORE_NUMBERS_MAX: usize = 1024;

/// Core numbers in the order in which shards are placed on them. Never empty, none twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(Vec<usize>);

impl CoreList {
    /// The core numbers, in the order given.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CoreList {
    type Err = String;

    /// Reads numbers and ranges (both ends included), separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cores = Vec::new();
        for item in text.split(',').map(str::trim) {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (core_number(first, item)?, core_number(last, item)?),
                None => core_number(item, item).map(|core| (core, core))?,
            };
            if first > last {
                return Err(format!("the range '{item}' runs backwards; write '{last}-{first}'"));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(format!("core {core} is named twice"));
                }
                cores.push(core);
            }
        }
        Ok(CoreList(cores))
    }
}

impl fmt::Display for CoreList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.0))
    }
}

/// The numbers as people list them: `0, 2, 3`.
pub fn join(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

fn core_number(text: &str, item: &str) -> Result<usize, String> {
    let text = text.trim();
    if item.is_empty() {
        return Err("a core number is missing; write numbers and ranges such as '0,2-3'".to_owned());
    }
    let number: usize = text
        .parse()
        .map_err(|_| format!("'{item}' is not a core number or a range; write numbers and ranges such as '0,2-3'"))?;
    if number >= CORE_NUMBERS_MAX {
        return Err(format!("core {number} is out of range; core numbers end at {}", CORE_NUMBERS_MAX - 1));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, cores: &[usize]) {
        assert_eq!(text.parse::<CoreList>().map(|list| list.0), Ok(cores.to_vec()), "{text:?}");
    }

    fn check_refused(text: &str, part: &str) {
        let reason = text.parse::<CoreList>().expect_err(text);
        assert!(reason.contains(part), "{text:?}: {reason}");
    }

    /// Goal: numbers and ranges are read, the order is kept. Method: each form once, both ends of the number range.
    #[test]
    fn numbers_and_ranges_are_read_in_order() {
        check("0", &[0]);
        check("3,1", &[3, 1]);
        check("0,2-3", &[0, 2, 3]);
        check(" 4 - 5 , 0 ", &[4, 5, 0]);
        check("7-7", &[7]);
        check("1023", &[1023]);
    }

    /// Goal: each mistake is named. Method: one of each, and the first number beyond the limit.
    #[test]
    fn mistakes_are_named() {
        check_refused("", "a core number is missing");
        check_refused("0,", "a core number is missing");
        check_refused("a", "'a' is not a core number");
        check_refused("1-", "'1-' is not a core number");
        check_refused("-1", "'-1' is not a core number");
        check_refused("3-1", "write '1-3'");
        check_refused("0,0-1", "core 0 is named twice");
        check_refused("1024", "core 1024 is out of range");
        check_refused("0-18446744073709551615", "out of range");
    }
}
