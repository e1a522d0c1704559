//! What the codec costs per message: octets to values on the way in, values to octets on the way out.
//!
//! Run it with `cargo bench --bench codec`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lepus::protocol::content::put_content;
use lepus::protocol::field_table::{FieldTable, FieldValue, TableRef};
use lepus::protocol::frame::{FRAME_END, FrameKind, take_frame};
use lepus::protocol::method::{Method, basic, peek_publish};
use lepus::protocol::properties::{
    NO_PROPERTIES, Properties, content_header, delivery_mode, expiration, property_flags,
};
use std::hint::black_box;

const FRAME_MAX: usize = 131_072;
const MESSAGES: u64 = 1000;

/// What a producer sends: so many publishes of 16 octets, as they lie in a read buffer.
fn publishes(properties: &Properties<'_>) -> Vec<u8> {
    let (mut out, mut raw) = (Vec::new(), Vec::new());
    properties.encode(&mut raw);
    for _ in 0..MESSAGES {
        let publish = basic::Publish { exchange: b"", routing_key: b"queue-1", ..Default::default() };
        Method::from(publish).put(&mut out, 1);
        put_content(&mut out, 1, &raw, b"sixteen octets..", FRAME_MAX);
    }
    out
}

/// Takes all messages of a read buffer; returns the sum of the body sizes.
fn take_messages(mut input: &[u8]) -> u64 {
    let mut body_octets = 0;
    while let Ok(Some((frame, used))) = take_frame(input, FRAME_MAX) {
        match frame.kind {
            FrameKind::Method => {
                black_box(peek_publish(frame.payload));
            }
            FrameKind::Header => {
                let Ok(header) = content_header(frame.payload) else { return 0 };
                body_octets += header.body_size + u64::from(property_flags(header.properties));
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        input = &input[used..];
    }
    assert!(input.is_empty(), "all octets are frames");
    body_octets
}

/// What Celery sends: a content type and encoding, headers, a delivery mode, identifiers.
fn celery_headers() -> FieldTable {
    let mut table = FieldTable::default();
    for name in ["lang", "task", "id", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin"] {
        table.insert(name, "3f8a1c8e-2f6b-4b8c-9f2b-0c8f5a1d2e3f".into());
    }
    table.insert("retries", FieldValue::I32(0));
    table.insert("timelimit", FieldValue::Array(vec![FieldValue::Void, FieldValue::Void]));
    table
}

fn inbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in");
    group.throughput(Throughput::Elements(MESSAGES));
    let plain = publishes(&Properties::default());
    group.bench_function("publish", |bencher| bencher.iter(|| take_messages(black_box(&plain))));
    let persistent = publishes(&Properties { delivery_mode: Some(2), ..Default::default() });
    group.bench_function("publish, persistent", |bencher| bencher.iter(|| take_messages(black_box(&persistent))));
    let typed = publishes(&Properties {
        content_type: Some(b"text/plain"),
        delivery_mode: Some(2),
        priority: Some(0),
        ..Default::default()
    });
    group.bench_function("publish, content type", |bencher| bencher.iter(|| take_messages(black_box(&typed))));
    let headers = celery_headers().to_octets();
    let task = publishes(&Properties {
        content_type: Some(b"application/json"),
        content_encoding: Some(b"utf-8"),
        headers: TableRef::new(&headers).ok(),
        delivery_mode: Some(2),
        priority: Some(0),
        correlation_id: Some(b"3f8a1c8e-2f6b-4b8c-9f2b-0c8f5a1d2e3f"),
        reply_to: Some(b"4f8a1c8e-2f6b-4b8c-9f2b-0c8f5a1d2e3f"),
        ..Default::default()
    });
    group.bench_function("publish, task", |bencher| bencher.iter(|| take_messages(black_box(&task))));
    group.finish();
}

fn methods(criterion: &mut Criterion) {
    let mut ack = Vec::new();
    Method::from(basic::Ack { delivery_tag: 77, multiple: true }).encode(&mut ack);
    criterion.bench_function("decode basic.ack", |bencher| bencher.iter(|| Method::decode(black_box(&ack))));
    let mut out = Vec::with_capacity(64);
    criterion.bench_function("put basic.ack", |bencher| {
        bencher.iter(|| {
            out.clear();
            Method::from(basic::Ack { delivery_tag: black_box(77), multiple: true }).put(&mut out, 1);
            out.len()
        });
    });
}

fn outbound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("out");
    group.throughput(Throughput::Elements(MESSAGES));
    let deliver = basic::Deliver {
        consumer_tag: b"ctag1.0a1b2c3d4e5f",
        delivery_tag: 1,
        redelivered: false,
        exchange: b"",
        routing_key: b"queue-1",
    };
    let mut out = Vec::with_capacity(256 << 10);
    group.bench_function("deliver", |bencher| {
        bencher.iter(|| {
            out.clear();
            for delivery_tag in 0..MESSAGES {
                Method::from(basic::Deliver { delivery_tag, ..black_box(deliver) }).put(&mut out, 1);
                put_content(&mut out, 1, black_box(NO_PROPERTIES), black_box(b"sixteen octets.."), FRAME_MAX);
            }
            out.len()
        });
    });
    let large = vec![7; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("content of 1 MiB", |bencher| {
        bencher.iter(|| {
            out.clear();
            put_content(&mut out, 1, NO_PROPERTIES, black_box(&large), FRAME_MAX);
            assert_eq!(out.last(), Some(&FRAME_END));
        });
    });
    group.finish();
}

fn tables(criterion: &mut Criterion) {
    let headers = celery_headers().to_octets();
    criterion.bench_function("validate headers", |bencher| bencher.iter(|| TableRef::new(black_box(&headers))));
    let table = TableRef::new(&headers).unwrap_or_default();
    criterion.bench_function("find a header", |bencher| bencher.iter(|| black_box(table).get(black_box(b"retries"))));
    let mut raw = Vec::new();
    Properties {
        content_type: Some(b"application/json"),
        headers: Some(table),
        delivery_mode: Some(2),
        expiration: Some(b"60000"),
        ..Default::default()
    }
    .encode(&mut raw);
    criterion.bench_function("decode properties", |bencher| bencher.iter(|| Properties::decode(black_box(&raw))));
    criterion.bench_function("delivery mode behind headers", |bencher| bencher.iter(|| delivery_mode(black_box(&raw))));
    criterion.bench_function("expiration behind headers", |bencher| bencher.iter(|| expiration(black_box(&raw))));
}

criterion_group!(benches, inbound, methods, outbound, tables);
criterion_main!(benches);
