//! What the broker says of itself, and how clients log in: SASL PLAIN and AMQPLAIN.

use crate::protocol::{
    field_table::{TableRef, ValueRef},
    field_value::{FieldTable, FieldValue},
    method::{Method, connection},
    wire::{Reader, put_u32},
};

/// The SASL mechanisms, separated by spaces.
pub const MECHANISMS: &[u8] = b"AMQPLAIN PLAIN";
/// What the broker can do beyond AMQP 0-9-1. Clients rely on each of them.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// `server-properties` of `connection.start`, encoded without its length.
pub fn server_properties() -> Vec<u8> {
    let mut table = FieldTable::default();
    let mut text = |name: &str, value: &str| table.insert(name, FieldValue::LongString(value.into()));
    text("product", "Lepus");
    text("version", env!("CARGO_PKG_VERSION"));
    text("platform", "Rust on Linux");
    text("copyright", "Copyright 2026 The Lepus authors");
    text("information", "Licensed under the Apache License 2.0");
    text("cluster_name", "lepus");
    let mut capabilities = FieldTable::default();
    for name in CAPABILITIES {
        capabilities.insert(name, FieldValue::Bool(true));
    }
    table.insert("capabilities", FieldValue::Table(capabilities));
    table.to_octets()
}

/// Appends `connection.start`.
pub fn put_start(out: &mut Vec<u8>) {
    let properties = server_properties();
    let server_properties = TableRef::new(&properties).expect("an own table is well-formed");
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: MECHANISMS,
        locales: b"en_US",
    };
    Method::ConnectionStart(start).put(out, 0);
}

/// What a client logs in with.
#[derive(Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Vec<u8>,
}

/// Reads the response of SASL PLAIN: authorization identity, user and password, separated by zero octets.
///
/// Source: RFC 4616.
pub fn plain(response: &[u8]) -> Option<Credentials> {
    let mut parts = response.splitn(3, |octet| *octet == 0);
    let (_, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Credentials { user: String::from_utf8(user.to_vec()).ok()?, password: password.to_vec() })
}

/// Reads the response of AMQPLAIN: a field table without its length, with LOGIN and PASSWORD.
pub fn amqplain(response: &[u8]) -> Option<Credentials> {
    let mut octets = Vec::with_capacity(response.len() + size_of::<u32>());
    put_u32(&mut octets, u32::try_from(response.len()).ok()?);
    octets.extend_from_slice(response);
    let table = Reader::new(&octets).table().ok()?;
    let (Some(ValueRef::LongString(user)), Some(ValueRef::LongString(password))) =
        (table.get(b"LOGIN"), table.get(b"PASSWORD"))
    else {
        return None;
    };
    Some(Credentials { user: String::from_utf8(user.to_vec()).ok()?, password: password.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: both mechanisms give the same credentials; what is malformed gives none.
    #[test]
    fn credentials_are_read() {
        let expected = Credentials { user: "guest".into(), password: b"sec\0ret".to_vec() };
        assert_eq!(plain(b"\0guest\0sec\0ret").as_ref(), Some(&expected));
        assert_eq!(plain(b"other\0guest\0sec\0ret").as_ref(), Some(&expected));
        assert_eq!(plain(b"\0guest"), None);
        assert_eq!(amqplain(b"\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x07sec\0ret").as_ref(), Some(&expected));
        assert_eq!(amqplain(b"\x05LOGINS\0\0\0\x05guest"), None);
        assert_eq!(amqplain(b"nonsense"), None);
    }
}
