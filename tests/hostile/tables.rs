//! Field tables that are not tables (AMQP 0-9-1, section 4.2.5.5).

use std::time::{Duration, Instant};

use crate::support::broker::Broker;
use crate::support::canary::{Canary, broker_is_unhurt};
use crate::support::methods::{self, EXCLUSIVE};
use crate::support::octets::{HEADER, Octets, Table};
use crate::support::wire::{ANSWER_MAX, Event, Wire, describe};

/// Sends the table as arguments of a `queue.declare`; answers the code of the `connection.close`.
#[track_caller]
fn declare_with(table: &Table) -> Option<u16> {
    let mut broker = Broker::start(&[]);
    let mut canary = Canary::new(&broker);
    let mut wire = Wire::open(&broker);
    wire.send_method(1, &methods::queue_declare("", EXCLUSIVE, table));
    let start = Instant::now();
    let Event::Frame(frame) = wire.next_event(ANSWER_MAX) else {
        assert!(broker.is_oracle(), "it was closed without a word");
        // RabbitMQ crashes the connection on some of them.
        return Some(541);
    };
    let code = if frame.method_id() == Some(methods::queue::DECLARE_OK) {
        None
    } else {
        assert_eq!(frame.method_id(), Some(methods::connection::CLOSE), "got {}", describe(&frame));
        Some(frame.arguments().u16())
    };
    assert!(start.elapsed() < Duration::from_secs(3) || broker.is_oracle(), "it took {:?}", start.elapsed());
    canary.sing();
    broker_is_unhurt(&mut broker);
    code
}

#[track_caller]
fn check_malformed(table: &Table) {
    let code = declare_with(table);
    if code.is_none() && crate::support::broker::oracle().is_some() {
        eprintln!("accepted: {table:?}");
        return;
    }
    assert!(matches!(code, Some(501 | 502 | 541)), "{:?} was answered {code:?}", &table.0[..table.0.len().min(40)]);
}

/// Tables nested `depth` deep. Sizes are written from the outside in, so that it is linear.
fn nested_tables(depth: usize) -> Table {
    let mut out = Vec::new();
    for level in 0..depth {
        // Each level is one entry: name of one octet, type, length, and the levels within.
        let within = (depth - level - 1) * 7;
        out.extend([1, b'n', b'F']);
        out.extend(u32::try_from(within).expect("small").to_be_bytes());
    }
    Table(out)
}

fn nested_arrays(depth: usize) -> Table {
    let mut value = Vec::new();
    for level in 0..depth {
        let within = (depth - level - 1) * 5;
        if level > 0 {
            value.push(b'A');
        }
        value.extend(u32::try_from(within).expect("small").to_be_bytes());
    }
    Table::new().entry("n", b'A', &value)
}

/// 10,000 levels are 70,000 octets: they fit into one frame.
#[test]
fn ten_thousand_nested_tables_are_refused_quickly() {
    let table = nested_tables(10_000);
    if crate::support::broker::oracle().is_none() {
        check_malformed(&table);
    } else {
        declare_with(&table);
    }
}

#[test]
fn ten_thousand_nested_arrays_are_refused_quickly() {
    let table = nested_arrays(10_000);
    if crate::support::broker::oracle().is_none() {
        check_malformed(&table);
    } else {
        declare_with(&table);
    }
}

/// Tables as deep as anybody uses them are accepted.
#[test]
fn thirty_nested_tables_are_accepted() {
    assert_eq!(declare_with(&nested_tables(30)), None);
    assert_eq!(declare_with(&nested_arrays(30)), None);
}

/// The same depth in the headers of a message and in the client's properties.
#[test]
fn ten_thousand_nested_tables_in_headers_hurt_nobody() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    wire.send_method(1, &methods::publish("", &queue, 0));
    let properties = Octets::new().u16(1 << 13).table(&nested_tables(10_000)).0;
    wire.send_frame(HEADER, 1, &methods::content_header(0, &properties));
    if broker.is_oracle() {
        // RabbitMQ does not look into headers that it does not need.
        assert!(wire.get(1, &queue, true).is_some());
    } else {
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 502)), "it was answered {code:?}");
    }
    broker_is_unhurt(&mut broker);
}

#[test]
fn every_kind_of_malformed_table_is_refused() {
    let valid = Table::new().text("x-first", "value");
    let long = |size: u32| size.to_be_bytes();
    let tables = [
        // A name that is longer than what is left; a name alone; a name and a type alone.
        Table([&valid.0[..], &[200, b'x']].concat()),
        Table([&valid.0[..], &[1, b'x']].concat()),
        Table([&valid.0[..], &[1, b'x', b'S']].concat()),
        // Types that do not exist.
        valid.clone().entry("x", b'?', &[0, 0, 0, 0]),
        valid.clone().entry("x", 0, &[]),
        valid.clone().entry("x", 255, &[1; 16]),
        // Values of fixed size that are cut.
        valid.clone().entry("x", b't', &[]),
        valid.clone().entry("x", b'I', &[0, 0, 0]),
        valid.clone().entry("x", b's', &[0]),
        valid.clone().entry("x", b'l', &[0; 7]),
        valid.clone().entry("x", b'd', &[0; 7]),
        valid.clone().entry("x", b'f', &[0; 3]),
        valid.clone().entry("x", b'D', &[0; 4]),
        valid.clone().entry("x", b'T', &[0; 7]),
        // Lengths that reach out of the table.
        valid.clone().entry("x", b'S', &long(1)),
        valid.clone().entry("x", b'S', &long(u32::MAX)),
        valid.clone().entry("x", b'x', &long(1000)),
        valid.clone().entry("x", b'F', &long(1)),
        valid.clone().entry("x", b'F', &long(u32::MAX)),
        valid.clone().entry("x", b'A', &long(u32::MAX)),
        // Wrong within: an entry of an inner table that reaches out of it; an array's element that does.
        valid.clone().entry("x", b'F', &[&long(3)[..], &[1, b'y', b'I'], &[0; 4]].concat()),
        valid.clone().entry("x", b'A', &[&long(1)[..], b"I"].concat()),
        valid.entry("x", b'A', &[&long(3)[..], &[b'I', 0, 0]].concat()),
    ];
    for table in &tables {
        check_malformed(table);
    }
}

/// A table whose own length reaches out of the method.
#[test]
fn a_table_longer_than_its_method_is_refused() {
    for length in [1, 8, 1 << 31, u32::MAX] {
        let mut broker = Broker::start(&[]);
        let mut wire = Wire::open(&broker);
        let method = Octets::method(methods::queue::DECLARE).u16(0).short("").u8(EXCLUSIVE).u32(length);
        wire.send_method(1, &method.0);
        let code = wire.read_to_end();
        assert!(matches!(code, Some(501 | 502 | 541)), "{length} was answered {code:?}");
        broker_is_unhurt(&mut broker);
    }
}

/// Every type of field is accepted and comes back in the headers as it was sent.
#[test]
fn every_type_of_field_comes_back_as_it_was_sent() {
    let mut broker = Broker::start(&[]);
    let mut wire = Wire::open(&broker);
    let queue = wire.declare(1, "", EXCLUSIVE);
    let inner = Table::new().text("t", "x").boolean("b", false);
    let array = Octets::new().u8(b'I').u32(1).u8(b'S').long(b"two").u8(b'V').0;
    let headers = Table::new()
        .boolean("t", true)
        .entry("b", b'b', &[0x80])
        .entry("B", b'B', &[0xFF])
        .entry("s", b's', &[0x80, 1])
        .entry("u", b'u', &[0xFF, 1])
        .i32("I", i32::MIN)
        .entry("i", b'i', &u32::MAX.to_be_bytes())
        .entry("l", b'l', &i64::MIN.to_be_bytes())
        .entry("f", b'f', &1.5_f32.to_be_bytes())
        .entry("d", b'd', &(-2.25_f64).to_be_bytes())
        .entry("D", b'D', &[2, 0, 0, 1, 44])
        .text("S", "text")
        .entry("x", b'x', &Octets::new().long(&[0, 255]).0)
        .entry("T", b'T', &1_700_000_000_u64.to_be_bytes())
        .entry("A", b'A', &Octets::new().long(&array).0)
        .table("F", &inner)
        .entry("V", b'V', &[]);
    let properties = Octets::new().u16(1 << 13).table(&headers).0;
    wire.send_method(1, &methods::publish("", &queue, 0));
    wire.send_frame(HEADER, 1, &methods::content_header(0, &properties));
    assert_eq!(wire.get(1, &queue, true).expect("it arrived").properties, properties);
    broker_is_unhurt(&mut broker);
}
