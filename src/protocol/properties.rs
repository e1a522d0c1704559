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
