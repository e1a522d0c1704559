//! The content header: how long a body is, and the properties of the message.
//!
//! Properties travel through the broker as they came, as octets: flags, then a list of the values that the flags
//! announce. What the broker itself needs to know is read out of them.
//!
//! Source: AMQP 0-9-1, sections 2.3.5.2 and 4.2.6.1.

use crate::protocol::field_table::TableRef;
use crate::protocol::wire::{
    Reader, SyntaxFault, TRAILING, TRUNCATED, put_long_string, put_short_string, put_u16, put_u64,
};

/// Which properties a message has: bits of the first flag word.
pub mod flags {
    /// `content-type`, a short string.
    pub const CONTENT_TYPE: u16 = 1 << 15;
    /// `content-encoding`, a short string.
    pub const CONTENT_ENCODING: u16 = 1 << 14;
    /// `headers`, a table.
    pub const HEADERS: u16 = 1 << 13;
    /// `delivery-mode`, an octet.
    pub const DELIVERY_MODE: u16 = 1 << 12;
    /// `priority`, an octet.
    pub const PRIORITY: u16 = 1 << 11;
    /// `correlation-id`, a short string.
    pub const CORRELATION_ID: u16 = 1 << 10;
    /// `reply-to`, a short string.
    pub const REPLY_TO: u16 = 1 << 9;
    /// `expiration`, a short string.
    pub const EXPIRATION: u16 = 1 << 8;
    /// `message-id`, a short string.
    pub const MESSAGE_ID: u16 = 1 << 7;
    /// `timestamp`, a long long integer.
    pub const TIMESTAMP: u16 = 1 << 6;
    /// `type`, a short string.
    pub const TYPE: u16 = 1 << 5;
    /// `user-id`, a short string.
    pub const USER_ID: u16 = 1 << 4;
    /// `app-id`, a short string.
    pub const APP_ID: u16 = 1 << 3;
    /// `cluster-id`, a short string (reserved in 0-9-1, still read and written by RabbitMQ).
    pub const CLUSTER_ID: u16 = 1 << 2;

    /// Bits that are no property of the basic class: one that is not used, and one that announces a second flag word.
    pub(super) const UNKNOWN: u16 = 0b11;
    /// The properties of one octet.
    pub(super) const OCTETS: u16 = DELIVERY_MODE | PRIORITY;
    /// The properties that are short strings.
    pub(super) const SHORT_STRINGS: u16 = !(UNKNOWN | OCTETS | HEADERS | TIMESTAMP);
}

/// The properties of a message that has none, on the wire.
pub const NO_PROPERTIES: &[u8] = &[0, 0];

/// Octets of a content header in front of the property flags: class id, weight, body size.
pub const CONTENT_HEADER_FIXED_OCTETS: usize = 12;

/// A content header in somebody else's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method that it belongs to.
    pub class_id: u16,
    /// How many octets the body has, as the peer declares it.
    pub body_size: u64,
    /// The property flags and the property list, well-formed.
    pub properties: &'a [u8],
}

/// Reads a header frame's payload. The weight is not looked at, as in RabbitMQ.
///
/// # Errors
/// Where it ends early, where the property list is malformed or does not fill the payload exactly, or where the flags
/// announce properties that the basic class does not have (RabbitMQ passes those on).
#[inline]
pub fn content_header(payload: &[u8]) -> Result<ContentHeader<'_>, SyntaxFault> {
    let (&[c0, c1, _, _, s0, s1, s2, s3, s4, s5, s6, s7], properties) =
        payload.split_first_chunk::<CONTENT_HEADER_FIXED_OCTETS>().ok_or(TRUNCATED)?;
    let class_id = u16::from_be_bytes([c0, c1]);
    let body_size = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let (&[f0, f1], list) = properties.split_first_chunk().ok_or(TRUNCATED)?;
    let flags = u16::from_be_bytes([f0, f1]);
    // What producers send most: nothing, or a delivery mode and perhaps a priority.
    if flags & !flags::OCTETS != 0 || list.len() != (flags & flags::OCTETS).count_ones() as usize {
        validate_list(flags, list)?;
    }
    Ok(ContentHeader { class_id, body_size, properties })
}

/// The first flag word; 0 where there is none.
#[inline]
pub fn property_flags(raw: &[u8]) -> u16 {
    raw.first_chunk().map_or(0, |word| u16::from_be_bytes(*word))
}

/// The delivery mode of well-formed properties: 2 is persistent.
#[inline]
pub fn delivery_mode(raw: &[u8]) -> Option<u8> {
    reader_at(raw, flags::DELIVERY_MODE)?.octet().ok()
}

/// The priority of well-formed properties.
#[inline]
pub fn priority(raw: &[u8]) -> Option<u8> {
    reader_at(raw, flags::PRIORITY)?.octet().ok()
}

/// The expiration of well-formed properties: decimal digits, in milliseconds, if the peer kept to it.
#[inline]
pub fn expiration(raw: &[u8]) -> Option<&[u8]> {
    reader_at(raw, flags::EXPIRATION)?.short_string().ok()
}

/// The headers of well-formed properties.
#[inline]
pub fn headers(raw: &[u8]) -> Option<TableRef<'_>> {
    reader_at(raw, flags::HEADERS)?.long_string().ok().map(TableRef::of_validated)
}

/// A reader at the value of one property; `None` where the message does not have it.
#[inline]
fn reader_at(raw: &[u8], property: u16) -> Option<Reader<'_>> {
    let flags = property_flags(raw);
    if flags & property == 0 {
        return None;
    }
    let mut reader = Reader::new(raw);
    reader.short().ok()?;
    // The list is in the order of the flags, from the highest bit down.
    let mut before = flags & !(property | (property - 1));
    while before != 0 {
        let next = 1 << (u16::BITS - 1 - before.leading_zeros());
        skip(&mut reader, next).ok()?;
        before &= !next;
    }
    Some(reader)
}

/// Skips the value of one property.
#[inline]
fn skip(reader: &mut Reader<'_>, property: u16) -> Result<(), SyntaxFault> {
    if property & flags::SHORT_STRINGS != 0 {
        reader.short_string()?;
    } else if property & flags::OCTETS != 0 {
        reader.octet()?;
    } else if property == flags::TIMESTAMP {
        reader.longlong()?;
    } else {
        reader.long_string()?;
    }
    Ok(())
}

/// Checks that a property list is well-formed and has nothing behind it.
fn validate_list(flags: u16, list: &[u8]) -> Result<(), SyntaxFault> {
    if flags & flags::UNKNOWN != 0 {
        return Err(SyntaxFault("unknown property flags"));
    }
    let mut reader = Reader::new(list);
    let mut rest = flags;
    while rest != 0 {
        let property = 1 << (u16::BITS - 1 - rest.leading_zeros());
        if property == flags::HEADERS {
            reader.table()?;
        } else {
            skip(&mut reader, property)?;
        }
        rest &= !property;
    }
    if reader.is_empty() { Ok(()) } else { Err(TRAILING) }
}

/// Writes the struct, its decoder and its encoder from one list, in the order of the wire.
macro_rules! properties {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $flag:ident, $read:ident, $put:expr;)*) => {
        /// The properties of a message, read out one by one.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Properties<'a> {
            $($(#[$doc])* pub $field: Option<$type>,)*
        }

        impl<'a> Properties<'a> {
            /// Reads flags and list.
            ///
            /// # Errors
            /// As [`content_header`].
            pub fn decode(raw: &'a [u8]) -> Result<Self, SyntaxFault> {
                let mut reader = Reader::new(raw);
                let flags = reader.short()?;
                if flags & flags::UNKNOWN != 0 {
                    return Err(SyntaxFault("unknown property flags"));
                }
                let properties = Self {
                    $($field: if flags & flags::$flag != 0 { Some(reader.$read()?) } else { None },)*
                };
                if reader.is_empty() { Ok(properties) } else { Err(TRAILING) }
            }

            /// Appends flags and list.
            ///
            /// # Panics
            /// Where a short string has more than 255 octets.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut flags = 0;
                $(if self.$field.is_some() {
                    flags |= flags::$flag;
                })*
                put_u16(out, flags);
                $(if let Some(value) = self.$field {
                    $put(out, value);
                })*
            }
        }
    };
}

properties! {
    /// MIME type of the body.
    content_type: &'a [u8], CONTENT_TYPE, short_string, put_short_string;
    /// MIME encoding of the body.
    content_encoding: &'a [u8], CONTENT_ENCODING, short_string, put_short_string;
    /// Whatever the publisher wants to tell.
    headers: TableRef<'a>, HEADERS, table, |out, table: TableRef<'_>| put_long_string(out, table.octets());
    /// 1 transient, 2 persistent.
    delivery_mode: u8, DELIVERY_MODE, octet, Vec::push;
    /// From 0 up.
    priority: u8, PRIORITY, octet, Vec::push;
    /// Ties an answer to its question.
    correlation_id: &'a [u8], CORRELATION_ID, short_string, put_short_string;
    /// Where an answer is to go.
    reply_to: &'a [u8], REPLY_TO, short_string, put_short_string;
    /// Decimal digits, in milliseconds.
    expiration: &'a [u8], EXPIRATION, short_string, put_short_string;
    /// The publisher's name of the message.
    message_id: &'a [u8], MESSAGE_ID, short_string, put_short_string;
    /// In seconds since 1970.
    timestamp: u64, TIMESTAMP, longlong, put_u64;
    /// The property `type`.
    kind: &'a [u8], TYPE, short_string, put_short_string;
    /// Who published it; checked by the broker.
    user_id: &'a [u8], USER_ID, short_string, put_short_string;
    /// What published it.
    app_id: &'a [u8], APP_ID, short_string, put_short_string;
    /// Reserved.
    cluster_id: &'a [u8], CLUSTER_ID, short_string, put_short_string;
}

#[cfg(test)]
mod tests {
    use super::{
        NO_PROPERTIES, Properties, content_header, delivery_mode, expiration, flags, headers, priority, property_flags,
    };
    use crate::protocol::field_table::TableRef;
    use crate::protocol::field_value::arbitrary;
    use crate::protocol::wire::{SyntaxFault, TRAILING, TRUNCATED};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A header frame's payload with these properties.
    fn payload_of(properties: &[u8], body_size: u64) -> Vec<u8> {
        [&[0, 60, 0, 0][..], &body_size.to_be_bytes(), properties].concat()
    }

    /// Properties with any selection of values.
    #[derive(Clone, Debug)]
    struct Owned {
        present: u16,
        strings: Vec<Vec<u8>>,
        headers: Vec<u8>,
        octets: (u8, u8),
        timestamp: u64,
    }

    fn owned() -> impl Strategy<Value = Owned> {
        // Few flags as often as many.
        let present = (any::<u16>(), any::<u16>(), any::<bool>()).prop_map(|(a, b, few)| if few { a & b } else { a });
        (present, vec(vec(any::<u8>(), 0..30), 10), arbitrary::table(), any::<(u8, u8)>(), any::<u64>()).prop_map(
            |(present, strings, table, octets, timestamp)| Owned {
                present,
                strings,
                headers: table.to_octets(),
                octets,
                timestamp,
            },
        )
    }

    impl Owned {
        fn view(&self) -> Properties<'_> {
            let string = |flag, place: usize| (self.present & flag != 0).then(|| &self.strings[place][..]);
            Properties {
                content_type: string(flags::CONTENT_TYPE, 0),
                content_encoding: string(flags::CONTENT_ENCODING, 1),
                headers: (self.present & flags::HEADERS != 0).then(|| TableRef::new(&self.headers).unwrap()),
                delivery_mode: (self.present & flags::DELIVERY_MODE != 0).then_some(self.octets.0),
                priority: (self.present & flags::PRIORITY != 0).then_some(self.octets.1),
                correlation_id: string(flags::CORRELATION_ID, 2),
                reply_to: string(flags::REPLY_TO, 3),
                expiration: string(flags::EXPIRATION, 4),
                message_id: string(flags::MESSAGE_ID, 5),
                timestamp: (self.present & flags::TIMESTAMP != 0).then_some(self.timestamp),
                kind: string(flags::TYPE, 6),
                user_id: string(flags::USER_ID, 7),
                app_id: string(flags::APP_ID, 8),
                cluster_id: string(flags::CLUSTER_ID, 9),
            }
        }
    }

    proptest! {
        /// Goal: all selections of properties return as they were; what is read out singly is what is read out at once;
        /// cut or with an octet more they are a fault.
        /// Method: random properties through both decoders.
        #[test]
        fn properties_return(owned in owned(), body_size: u64) {
            let properties = owned.view();
            let mut raw = Vec::new();
            properties.encode(&mut raw);
            prop_assert_eq!(Properties::decode(&raw), Ok(properties));
            prop_assert_eq!(property_flags(&raw), owned.present & !flags::UNKNOWN);
            prop_assert_eq!(delivery_mode(&raw), properties.delivery_mode);
            prop_assert_eq!(priority(&raw), properties.priority);
            prop_assert_eq!(expiration(&raw), properties.expiration);
            prop_assert_eq!(headers(&raw), properties.headers);

            let mut payload = payload_of(&raw, body_size);
            let header = content_header(&payload).unwrap();
            prop_assert_eq!((header.class_id, header.body_size, header.properties), (60, body_size, &raw[..]));
            for end in 0..payload.len() {
                prop_assert_eq!(content_header(&payload[..end]), Err(TRUNCATED));
            }
            payload.push(0);
            prop_assert_eq!(content_header(&payload), Err(TRAILING));
            raw.push(0);
            prop_assert_eq!(Properties::decode(&raw), Err(TRAILING));
        }

        /// Goal: both decoders agree about any octets.
        /// Method: random flags and small octets behind them.
        #[test]
        fn decoders_agree(flag_word: u16, list in vec(0_u8..4, 0..24)) {
            let raw = [&flag_word.to_be_bytes()[..], &list].concat();
            let payload = payload_of(&raw, 0);
            let header = content_header(&payload).map(|_| ());
            prop_assert_eq!(header, Properties::decode(&raw).map(|_| ()));
        }
    }

    fn check(properties: &[u8], expected: Result<(), SyntaxFault>) {
        assert_eq!(content_header(&payload_of(properties, 0)).map(|_| ()), expected, "{properties:?}");
        assert_eq!(Properties::decode(properties).map(|_| ()), expected, "{properties:?}");
    }

    /// Goal: the list is in the order of the flags, and its length is exact.
    /// Method: lists written by hand, on both sides of their length.
    #[test]
    fn lists_fill_the_payload_exactly() {
        check(NO_PROPERTIES, Ok(()));
        check(&[0, 0, 0], Err(TRAILING));
        check(&[0x18, 0, 2], Err(TRUNCATED));
        check(&[0x18, 0, 2, 9], Ok(()));
        check(&[0x18, 0, 2, 9, 0], Err(TRAILING));
        check(&[0x10, 0x40, 2, 0, 0, 0, 0, 0, 0, 0], Err(TRUNCATED));
        check(&[0x10, 0x40, 2, 0, 0, 0, 0, 0, 0, 0, 1], Ok(()));
        let properties = Properties::decode(&[0x98, 0, 1, b'x', 2, 9]).unwrap();
        let expected =
            Properties { content_type: Some(b"x"), delivery_mode: Some(2), priority: Some(9), ..Default::default() };
        assert_eq!(properties, expected);
    }

    /// Goal: flags without a property are refused, also the one that announces more flags (section 4.2.6.1).
    /// Method: each of both, alone and with the next flag word.
    #[test]
    fn unknown_flags_are_refused() {
        let unknown = Err(SyntaxFault("unknown property flags"));
        check(&[0, 1], unknown);
        check(&[0, 1, 0, 0], unknown);
        check(&[0, 2], unknown);
        check(&[0x10, 1, 2], unknown);
    }

    /// Goal: the headers are looked into before the message is passed on.
    /// Method: a table with an unknown type.
    #[test]
    fn malformed_headers_are_refused() {
        check(&[0x20, 0, 0, 0, 0, 3, 1, b'n', b'V'], Ok(()));
        check(&[0x20, 0, 0, 0, 0, 3, 1, b'n', b'?'], Err(SyntaxFault("unknown field type in a table")));
    }
}
