//! Copying and comparing octets of which most are few: keys, names, properties. A call, as the standard library makes one where
//! it does not know the length, costs more than the work.

/// Copies `octets` to the front of `out` and returns what is behind them.
#[inline]
pub fn put<'o>(out: &'o mut [u8], octets: &[u8]) -> &'o mut [u8] {
    let (to, rest) = out.split_at_mut(octets.len());
    match octets.len() {
        0 => {}
        1..4 => to.iter_mut().zip(octets).for_each(|(to, octet)| *to = *octet),
        4..8 => put_ends::<4>(to, octets),
        8..16 => put_ends::<8>(to, octets),
        16..=32 => put_ends::<16>(to, octets),
        _ => to.copy_from_slice(octets),
    }
    rest
}

/// Copies the first and the last `N` octets of `from`, which are all of it if it is no longer than twice that.
#[inline]
fn put_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else { return };
    if let Some(to) = to.first_chunk_mut::<N>() {
        *to = *first;
    }
    if let Some(to) = to.last_chunk_mut::<N>() {
        *to = *last;
    }
}

/// Whether both are the same.
#[inline]
pub fn are_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && match one.len() {
            0 => true,
            1..4 => one.iter().zip(other).all(|(one, other)| one == other),
            4..8 => have_equal_ends::<4>(one, other),
            8..16 => have_equal_ends::<8>(one, other),
            16..=32 => have_equal_ends::<16>(one, other),
            _ => one == other,
        }
}

/// Whether the first and the last `N` octets are the same, which are all if there are no more than twice that.
#[inline]
fn have_equal_ends<const N: usize>(one: &[u8], other: &[u8]) -> bool {
    one.first_chunk::<N>() == other.first_chunk::<N>() && one.last_chunk::<N>() == other.last_chunk::<N>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: octets are copied whole, whatever their length.
    /// Method: all lengths around the bounds between the ways of copying, into a buffer that is longer by three.
    #[test]
    fn octets_of_any_length_are_put() {
        let octets: Vec<u8> = (1..=100).collect();
        for length in 0..octets.len() {
            let mut out = vec![0; length + 3];
            assert_eq!(put(&mut out, &octets[..length]), [0; 3]);
            assert_eq!(out[..length], octets[..length]);
            assert_eq!(out[length..], [0; 3]);
        }
    }

    /// Goal: no octet is overlooked. Method: all lengths, with each octet changed, and one less.
    #[test]
    fn octets_of_any_length_are_compared() {
        let octets: Vec<u8> = (1..=100).collect();
        for length in 0..octets.len() {
            let one = &octets[..length];
            assert!(are_equal(one, &octets.clone()[..length]));
            assert!(!are_equal(one, &octets[..=length]) && !are_equal(&octets[..=length], one));
            for at in 0..length {
                let mut other = one.to_vec();
                other[at] ^= 0x80;
                assert!(!are_equal(one, &other), "octet {at} of {length}");
            }
        }
    }
}
