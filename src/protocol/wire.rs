//! The elementary types of the wire: integers, short strings, long strings. Network byte order throughout.
//!
//! Knows nothing of tables, frames or methods.
//!
//! Source: AMQP 0-9-1, sections 4.2.5.1 to 4.2.5.3.

use crate::protocol::exception::ConnectionException;
use crate::protocol::reply_code::ReplyCode;
use std::fmt::{self, Display};

/// Malformed octets, and what is wrong with them.
///
/// Becomes a connection exception `SYNTAX_ERROR` (502).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxFault(pub &'static str);

impl Display for SyntaxFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for SyntaxFault {}

impl From<SyntaxFault> for ConnectionException {
    fn from(fault: SyntaxFault) -> Self {
        Self::new(ReplyCode::SyntaxError, fault)
    }
}

/// The fault of octets that end before what they announce.
pub const TRUNCATED: SyntaxFault = SyntaxFault("the octets end within a value");
/// The fault of octets that go on where they should end.
pub const TRAILING: SyntaxFault = SyntaxFault("octets follow the last value");

/// Reads values from the front of a slice, and borrows from it.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

/// Reads one big-endian integer.
macro_rules! read_integer {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&mut self) -> Result<$type, SyntaxFault> {
            let (octets, rest) = self.rest.split_first_chunk().ok_or(TRUNCATED)?;
            self.rest = rest;
            Ok(<$type>::from_be_bytes(*octets))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the first of `octets`.
    #[inline]
    pub const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// What has not been read yet.
    #[inline]
    pub const fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all has been read.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    read_integer! {
        /// An octet.
        octet: u8;
        /// A short integer, of two octets.
        short: u16;
        /// A long integer, of four octets.
        long: u32;
        /// A long long integer, of eight octets.
        longlong: u64;
    }

    /// The next `count` octets.
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], SyntaxFault> {
        let (octets, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(octets)
    }

    /// A string of at most 255 octets. That they are UTF-8 is for those to check who make a name of them.
    #[inline]
    pub fn short_string(&mut self) -> Result<&'a [u8], SyntaxFault> {
        let count = self.octet()?;
        self.take(usize::from(count))
    }

    /// A string of up to 2^32 - 1 octets, of any content.
    #[inline]
    pub fn long_string(&mut self) -> Result<&'a [u8], SyntaxFault> {
        let count = self.long()?;
        // Lepus runs where a usize holds a u32; elsewhere such a length is longer than any slice.
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }
}

/// Appends a short integer.
#[inline]
pub fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a long integer.
#[inline]
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a long long integer.
#[inline]
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a short string: its length in one octet, then its octets.
///
/// # Panics
/// Where it has more than 255 octets: whoever makes a name checks its length.
#[inline]
pub fn put_short_string(out: &mut Vec<u8>, octets: &[u8]) {
    out.push(u8::try_from(octets.len()).expect("a short string is at most 255 octets"));
    out.extend_from_slice(octets);
}

/// Appends a long string: its length in four octets, then its octets.
///
/// # Panics
/// Where it has 2^32 octets or more.
#[inline]
pub fn put_long_string(out: &mut Vec<u8>, octets: &[u8]) {
    put_u32(out, u32::try_from(octets.len()).expect("a long string is shorter than 2^32 octets"));
    out.extend_from_slice(octets);
}

#[cfg(test)]
mod tests {
    use super::{Reader, SyntaxFault, TRUNCATED, put_long_string, put_short_string, put_u16, put_u32, put_u64};
    use crate::protocol::exception::ConnectionException;
    use proptest::prelude::*;

    proptest! {
        /// Goal: what is put is read again, and nothing is left.
        /// Method: one value of each type, in sequence.
        #[test]
        fn values_return(
            octet: u8, short: u16, long: u32, longlong: u64,
            short_string in prop::collection::vec(any::<u8>(), 0..=255),
            long_string in prop::collection::vec(any::<u8>(), 0..=600),
        ) {
            let mut out = vec![octet];
            put_u16(&mut out, short);
            put_u32(&mut out, long);
            put_u64(&mut out, longlong);
            put_short_string(&mut out, &short_string);
            put_long_string(&mut out, &long_string);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.octet(), Ok(octet));
            prop_assert_eq!(reader.short(), Ok(short));
            prop_assert_eq!(reader.long(), Ok(long));
            prop_assert_eq!(reader.longlong(), Ok(longlong));
            prop_assert_eq!(reader.short_string(), Ok(&short_string[..]));
            prop_assert_eq!(reader.long_string(), Ok(&long_string[..]));
            prop_assert!(reader.is_empty());
        }
    }

    /// Goal: a value whose last octet is missing is a fault, and consumes nothing beyond its length.
    /// Method: each type, cut by one octet.
    #[test]
    fn truncated_values_are_faults() {
        assert_eq!(Reader::new(&[]).octet(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[0; 1]).short(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[0; 3]).long(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[0; 7]).longlong(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[2, b'a']).short_string(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[0, 0, 0, 2, b'a']).long_string(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[255, 255, 255, 255, b'a']).long_string(), Err(TRUNCATED));
    }

    /// Goal: the longest short string passes, one octet more is our own mistake.
    /// Method: both sides of 255.
    #[test]
    fn short_string_ends_at_255_octets() {
        let mut out = Vec::new();
        put_short_string(&mut out, &[b'x'; 255]);
        assert_eq!(Reader::new(&out).short_string(), Ok(&[b'x'; 255][..]));
        assert!(std::panic::catch_unwind(|| put_short_string(&mut Vec::new(), &[b'x'; 256])).is_err());
    }

    /// Goal: a fault closes the connection with 502.
    /// Method: convert one.
    #[test]
    fn fault_is_a_syntax_error() {
        let exception = ConnectionException::from(SyntaxFault("bad"));
        assert_eq!((exception.code.code(), exception.text.as_str()), (502, "SYNTAX_ERROR - bad"));
    }
}
