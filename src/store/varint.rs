//! Whole numbers in as few octets as they need: LEB128, seven bits an octet, the lowest first.

/// The longest one, in octets.
pub(crate) const VARINT_OCTETS_MAX: usize = 10;

/// Writes `number` to `out` from `at` on, and returns where it ends.
#[inline]
pub(crate) fn put(out: &mut [u8], at: usize, number: u64) -> usize {
    let mut at = at;
    let mut rest = number;
    while rest >= 0x80 {
        out[at] = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = (rest & 0x7f) as u8;
    at + 1
}

/// Takes one number from the front of `input`.
///
/// Returns `None` where it is cut off or does not fit into 64 bits; `input` is of no use then.
#[inline]
pub(crate) fn take(input: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = input.split_first()?;
        *input = rest;
        let bits = u64::from(octet & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(number: u64, octets: usize) {
        let mut out = [0xff; VARINT_OCTETS_MAX + 1];
        let end = put(&mut out, 1, number);
        assert_eq!(end, 1 + octets, "{number}");
        let mut input = &out[1..];
        assert_eq!(take(&mut input), Some(number));
        assert_eq!(input.len(), VARINT_OCTETS_MAX - octets, "{number}: took another number of octets");
        for cut in 1..end {
            assert_eq!(take(&mut &out[1..cut]), None, "{number}: was read from {} octets", cut - 1);
        }
    }

    /// Goal: each number is read as it was written, and not from less. Method: both sides of each length.
    #[test]
    fn numbers_are_read_as_written() {
        check(0, 1);
        for octets in 1..VARINT_OCTETS_MAX {
            check((1 << (7 * octets)) - 1, octets);
            check(1 << (7 * octets), octets + 1);
        }
        check(u64::MAX, VARINT_OCTETS_MAX);
    }

    /// Goal: what no 64 bits hold is no number. Method: the least such, and one that does not end.
    #[test]
    fn longer_numbers_are_refused() {
        assert_eq!(take(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02][..]), None);
        assert_eq!(take(&mut &[0xff; 20][..]), None);
        assert_eq!(take(&mut &[][..]), None);
    }
}
