//! What a producer writes at the front of each body.
//!
//! Sixteen octets, big-endian: producer (2), sequence number modulo 2^32 (4), time of sending in units of 64 ns of the run's
//! clock modulo 2^40 (5), how much earlier it should have been sent (2: 11 bits, then an exponent of 5, in nanoseconds, rounded
//! up by 0.1 % of itself at most), checksum over all that and the rest of the body (3). So service times are exact to 64 ns, and
//! response times are never too short. Bodies of 6 to 15 octets carry the first two alone: their order is checked, their
//! latency and content are not.

#![allow(clippy::cast_possible_truncation, reason = "fields are cut out of a word")]

/// Octets of a stamp with times.
pub const STAMP_OCTETS: usize = 16;
/// Octets of a stamp without; the smallest body.
pub const NUMBER_OCTETS: usize = 6;

const UNIT_BITS: u32 = 6;
const TIME_BITS: u32 = 40;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const CHECKSUM_MASK: u32 = (1 << 24) - 1;
const MANTISSA_BITS: u32 = 11;

/// What a body says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the producer in this run.
    pub producer: u16,
    /// The producer's count of messages before this one, modulo 2^32.
    pub sequence: u32,
    /// When it should have been sent, in nanoseconds of the run's clock.
    pub intended: u64,
    /// How much later it was sent, in nanoseconds.
    pub lag: u64,
}

/// A stamp as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadStamp {
    /// What it says; without times, 0, where the body has no room for them.
    pub stamp: Stamp,
    /// The checksum that the rest of the body has to have; `None` where there is none.
    pub rest_checksum: Option<u32>,
}

impl Stamp {
    /// The stamp at the front of `body`, received at `now`; `None` where that is too short to have come from here.
    #[inline]
    pub fn read(body: &[u8], now: u64) -> Option<ReadStamp> {
        let Some(octets) = body.first_chunk::<STAMP_OCTETS>() else {
            let [p0, p1, s0, s1, s2, s3] = *body.first_chunk::<NUMBER_OCTETS>()?;
            let (producer, sequence) = (u16::from_be_bytes([p0, p1]), u32::from_be_bytes([s0, s1, s2, s3]));
            return Some(ReadStamp { stamp: Self { producer, sequence, intended: 0, lag: 0 }, rest_checksum: None });
        };
        let whole = u128::from_be_bytes(*octets);
        let content = whole >> 24;
        let rest_checksum = (low_32(whole) ^ mixed(content)) & CHECKSUM_MASK;
        let (sent, lag) = (near(((whole >> 40) as u64) & TIME_MASK, now), long_lag((whole >> 24) as u16));
        let stamp = Self {
            producer: (whole >> 112) as u16,
            sequence: low_32(whole >> 80),
            intended: sent.saturating_sub(lag),
            lag: sent.min(lag),
        };
        Some(ReadStamp { stamp, rest_checksum: Some(rest_checksum) })
    }

    /// Writes it at the front of `body`, which has [`NUMBER_OCTETS`] at least. `rest_checksum` is that of what is behind the
    /// stamp.
    #[inline]
    pub fn write(&self, body: &mut [u8], rest_checksum: u32) {
        let content = u128::from(self.producer) << 88
            | u128::from(self.sequence) << 56
            | u128::from((self.sent() >> UNIT_BITS) & TIME_MASK) << 16
            | u128::from(short_lag(self.lag));
        let checksum = (mixed(content) ^ rest_checksum) & CHECKSUM_MASK;
        let octets = (content << 24 | u128::from(checksum)).to_be_bytes();
        match body.first_chunk_mut::<STAMP_OCTETS>() {
            Some(front) => *front = octets,
            None => body[..NUMBER_OCTETS].copy_from_slice(&octets[..NUMBER_OCTETS]),
        }
    }

    /// When it was sent.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.intended + self.lag
    }
}

/// The checksum of what is behind a stamp: CRC-32, of which a stamp holds 24 bits. 0 of nothing.
#[inline]
pub fn rest_checksum(rest: &[u8]) -> u32 {
    if rest.is_empty() { 0 } else { crc32fast::hash(rest) & CHECKSUM_MASK }
}

#[inline]
fn low_32(whole: u128) -> u32 {
    whole as u32
}

/// A hash of thirteen octets, such that a change of any of them changes the low 24 bits, but for one time in 2^24.
#[inline]
fn mixed(content: u128) -> u32 {
    let high = ((content >> 64) as u64 ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let low = (content as u64 ^ high.rotate_left(32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((low ^ low >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 40) as u32
}

/// The time whose low bits are these units, and which is nearest to `now`.
#[inline]
fn near(units: u64, now: u64) -> u64 {
    let ahead = units.wrapping_sub(now >> UNIT_BITS) & TIME_MASK;
    // More than half of the range ahead is behind.
    let signed = if ahead > TIME_MASK / 2 { ahead.cast_signed() - (1 << TIME_BITS) } else { ahead.cast_signed() };
    (now >> UNIT_BITS).saturating_add_signed(signed) << UNIT_BITS
}

#[inline]
fn short_lag(lag: u64) -> u16 {
    let exponent = (u64::BITS - lag.leading_zeros()).saturating_sub(MANTISSA_BITS);
    if exponent > 31 {
        return u16::MAX;
    }
    let mantissa = lag.div_ceil(1 << exponent);
    // Rounding up may take one bit more: then it is the least with the next exponent.
    match (mantissa >> MANTISSA_BITS, exponent) {
        (0, _) => (mantissa << 5) as u16 | exponent as u16,
        (_, 31) => u16::MAX,
        _ => ((mantissa >> 1) << 5) as u16 | (exponent + 1) as u16,
    }
}

#[inline]
fn long_lag(short: u16) -> u64 {
    u64::from(short >> 5) << (short & 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stamp: Stamp, body_octets: usize, now: u64) {
        let mut body = vec![b'x'; body_octets];
        let rest = rest_checksum(&body[STAMP_OCTETS.min(body_octets)..]);
        stamp.write(&mut body, rest);
        let found = Stamp::read(&body, now).expect("long enough");
        assert_eq!((found.stamp.producer, found.stamp.sequence), (stamp.producer, stamp.sequence), "{body_octets}");
        assert!(body.iter().skip(STAMP_OCTETS).all(|&octet| octet == b'x'), "it wrote over the rest");
        if body_octets < STAMP_OCTETS {
            assert_eq!((found.stamp.intended, found.rest_checksum), (0, None));
            return;
        }
        assert_eq!(found.rest_checksum, Some(rest));
        assert_eq!(found.stamp.sent(), stamp.sent() >> UNIT_BITS << UNIT_BITS);
        assert!(found.stamp.lag >= stamp.lag && (found.stamp.lag - stamp.lag) * 1024 <= stamp.lag, "{stamp:?}");
        assert_eq!(found.stamp.intended, found.stamp.sent() - found.stamp.lag);
    }

    /// Goal: a stamp comes back as it was written; times to 64 ns and only where there is room for them.
    /// Method: bodies on both sides of the limits; extremes of each field; times around each turn of the 40 bits.
    #[test]
    fn stamps_come_back() {
        let stamp = Stamp { producer: u16::MAX, sequence: u32::MAX, intended: 0, lag: 0 };
        let hour = 3_600_000_000_000;
        for intended in [64, hour, 19 * hour, 20 * hour, 300 * hour] {
            for (late, lag) in
                [(0, 0), (1_000, 63), (1_000, 999), (9 * hour, hour), (9 * hour, 4_095_999), (5, 123_456_789)]
            {
                for body_octets in [6, 15, 16, 17, 4096] {
                    // A lag that is rounded up is not to begin before the clock.
                    let intended = intended + hour;
                    check(Stamp { intended, lag, ..stamp }, body_octets, intended + lag + late);
                }
            }
        }
        assert_eq!(Stamp::read(&[0; 5], 0), None);
    }

    /// Goal: a lag that has no room is told as the longest, not as a short one.
    #[test]
    fn a_long_lag_saturates() {
        assert_eq!(long_lag(short_lag(u64::MAX)), 2047 << 31);
    }

    /// Goal: each changed bit, of stamp or rest, shows.
    #[test]
    fn changed_bits_show() {
        let mut body = vec![7; 40];
        let rest = rest_checksum(&body[STAMP_OCTETS..]);
        Stamp { producer: 1, sequence: 2, intended: 1 << 30, lag: 500 }.write(&mut body, rest);
        for bit in 0..body.len() * 8 {
            body[bit / 8] ^= 1 << (bit % 8);
            let found = Stamp::read(&body, 1 << 30).expect("long enough");
            assert_ne!(found.rest_checksum, Some(rest_checksum(&body[STAMP_OCTETS..])), "bit {bit}");
            body[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
