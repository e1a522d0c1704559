//! A histogram as it is kept in result files.

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};
use serde::{Deserialize, Serialize};

/// Significant decimal digits that are kept of a value.
pub const SIGNIFICANT_DIGITS: u8 = 3;
/// The longest that is told apart, in nanoseconds: an hour. What takes longer counts as that.
pub const NANOS_MAX: u64 = 3_600_000_000_000;

/// Durations in nanoseconds, from 1 to `NANOS_MAX`. In files: base64 of HdrHistogram's compressed encoding, version 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded(pub Histogram<u64>);

impl Default for Recorded {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, SIGNIFICANT_DIGITS);
        Self(histogram.expect("the bounds are right"))
    }
}

impl Recorded {
    /// Takes one.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    /// Takes all that another has.
    ///
    /// # Panics
    /// Does not: both have the same bounds, or values beyond them count as the longest.
    pub fn add(&mut self, other: &Self) {
        if self.0.add(&other.0).is_err() {
            for value in other.0.iter_recorded() {
                self.0.saturating_record_n(value.value_iterated_to(), value.count_at_value());
            }
        }
    }

    /// Whether nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are longer than `nanos`, to three digits: those that cannot be told from it are not.
    pub fn count_above(&self, nanos: u64) -> u64 {
        self.0.count_between(self.0.next_non_equivalent(nanos.max(1)), u64::MAX)
    }

    /// As in interval logs (`.hlog`).
    pub fn to_base64(&self) -> String {
        let mut octets = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut octets).expect("writing to memory does not fail");
        STANDARD.encode(octets)
    }

    /// Reads what [`Recorded::to_base64`], or another implementation, has written.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let octets = STANDARD.decode(text).map_err(|error| format!("not base64: {error}"))?;
        let histogram = Deserializer::new().deserialize(&mut octets.as_slice());
        Ok(Self(histogram.map_err(|error| format!("not an encoded histogram: {error}"))?))
    }
}

impl Serialize for Recorded {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_base64())
    }
}

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_base64(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a histogram comes back from its text with every count; damage is told.
    #[test]
    fn histograms_come_back() {
        let mut recorded = Recorded::default();
        for nanos in [1, 999, 1_000, 123_456, NANOS_MAX, NANOS_MAX + 1] {
            recorded.record(nanos);
        }
        assert_eq!(Recorded::from_base64(&recorded.to_base64()).as_ref(), Ok(&recorded));
        assert!(Recorded::from_base64("x").is_err());
        assert!(Recorded::from_base64("AAAA").is_err());
    }
}
