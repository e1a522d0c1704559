//! What a producer writes at the front of each body.
//!
//! Sixteen octets, big-endian: producer (2), sequence number modulo 2^32 (4), intended send time in nanoseconds of the
//! run's clock modulo 2^48 (6), how much later it was really sent in units of 64 ns (4; it stops at 274 seconds).
//! Bodies of 6 to 15 octets carry the first two alone: their order is checked, their latency is not known.

/// Octets of a stamp with times.
pub const STAMP_OCTETS: usize = 16;
/// Octets of a stamp without; the smallest body.
pub const NUMBER_OCTETS: usize = 6;

const LAG_UNIT_NANOS: u64 = 64;
const TIME_BITS: u32 = 48;

/// What a body says of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of the producer in this run.
    pub producer: u16,
    /// The producer's count of messages before this one, modulo 2^32.
    pub sequence: u32,
    /// When and how late, where the body has room for it.
    pub times: Option<Times>,
}

/// When a message should have been sent, and when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// When it should have been sent, in nanoseconds of the run's clock.
    pub intended: u64,
    /// When it was sent.
    pub sent: u64,
}

impl Stamp {
    /// The stamp at the front of `body`; `None` where that is too short to have come from here.
    #[inline]
    pub fn read(body: &[u8]) -> Option<Self> {
        if let Some(octets) = body.first_chunk::<STAMP_OCTETS>() {
            let [p0, p1, s0, s1, s2, s3, t0, t1, t2, t3, t4, t5, l0, l1, l2, l3] = *octets;
            let intended = u64::from_be_bytes([0, 0, t0, t1, t2, t3, t4, t5]);
            let lag = u64::from(u32::from_be_bytes([l0, l1, l2, l3])) * LAG_UNIT_NANOS;
            return Some(Self {
                producer: u16::from_be_bytes([p0, p1]),
                sequence: u32::from_be_bytes([s0, s1, s2, s3]),
                times: Some(Times { intended, sent: intended + lag }),
            });
        }
        let [p0, p1, s0, s1, s2, s3] = *body.first_chunk::<NUMBER_OCTETS>()?;
        let (producer, sequence) = (u16::from_be_bytes([p0, p1]), u32::from_be_bytes([s0, s1, s2, s3]));
        Some(Self { producer, sequence, times: None })
    }

    /// Writes it at the front of `body`, which has [`NUMBER_OCTETS`] at least.
    #[inline]
    pub fn write(&self, body: &mut [u8]) {
        let times = self.times.unwrap_or(Times { intended: 0, sent: 0 });
        let lag = u32::try_from(times.sent.saturating_sub(times.intended) / LAG_UNIT_NANOS).unwrap_or(u32::MAX);
        let intended = times.intended & ((1 << TIME_BITS) - 1);
        let whole = u128::from(self.producer) << 112
            | u128::from(self.sequence) << 80
            | u128::from(intended) << 32
            | u128::from(lag);
        let octets = whole.to_be_bytes();
        match body.first_chunk_mut::<STAMP_OCTETS>() {
            Some(front) => *front = octets,
            None => body[..NUMBER_OCTETS].copy_from_slice(&octets[..NUMBER_OCTETS]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stamp: Stamp, body_octets: usize, expected: Option<Stamp>) {
        let mut body = vec![b'x'; body_octets];
        stamp.write(&mut body);
        assert_eq!(Stamp::read(&body), expected, "{body_octets} octets");
        assert!(body.iter().skip(STAMP_OCTETS).all(|&octet| octet == b'x'), "it wrote over the rest");
    }

    /// Goal: a stamp comes back as it was written; times to 64 ns and only where there is room for them.
    /// Method: bodies on both sides of the limits; extremes of each field.
    #[test]
    fn stamps_come_back() {
        let times = Some(Times { intended: (1 << TIME_BITS) - 1, sent: (1 << TIME_BITS) - 1 + 6400 });
        let stamp = Stamp { producer: u16::MAX, sequence: u32::MAX, times };
        for body_octets in [16, 17, 4096] {
            check(stamp, body_octets, Some(stamp));
        }
        for body_octets in [6, 15] {
            check(stamp, body_octets, Some(Stamp { times: None, ..stamp }));
        }
        assert_eq!(Stamp::read(&[0; 5]), None);
        let times = Some(Times { intended: 5, sent: 5 + 63 });
        let stamp = Stamp { producer: 0, sequence: 1, times };
        check(stamp, 16, Some(Stamp { times: Some(Times { intended: 5, sent: 5 }), ..stamp }));
    }

    /// Goal: a lag that has no room is told as the longest, not as a short one.
    #[test]
    fn a_long_lag_saturates() {
        let times = Some(Times { intended: 1, sent: 1 << 47 });
        let longest = Some(Times { intended: 1, sent: 1 + u64::from(u32::MAX) * LAG_UNIT_NANOS });
        check(Stamp { producer: 1, sequence: 2, times }, 16, Some(Stamp { producer: 1, sequence: 2, times: longest }));
    }
}
