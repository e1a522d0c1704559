//! Methods as octets: what a client sends. Ids of what the broker answers stand beside them.

use super::octets::{MethodId, Octets, Table};

pub mod connection {
    use super::MethodId;
    pub const START: MethodId = (10, 10);
    pub const START_OK: MethodId = (10, 11);
    pub const SECURE_OK: MethodId = (10, 21);
    pub const TUNE: MethodId = (10, 30);
    pub const TUNE_OK: MethodId = (10, 31);
    pub const OPEN: MethodId = (10, 40);
    pub const OPEN_OK: MethodId = (10, 41);
    pub const CLOSE: MethodId = (10, 50);
    pub const CLOSE_OK: MethodId = (10, 51);
    pub const BLOCKED: MethodId = (10, 60);
    pub const UNBLOCKED: MethodId = (10, 61);
    pub const UPDATE_SECRET: MethodId = (10, 70);
    pub const UPDATE_SECRET_OK: MethodId = (10, 71);
}

pub mod channel {
    use super::MethodId;
    pub const OPEN: MethodId = (20, 10);
    pub const OPEN_OK: MethodId = (20, 11);
    pub const FLOW: MethodId = (20, 20);
    pub const FLOW_OK: MethodId = (20, 21);
    pub const CLOSE: MethodId = (20, 40);
    pub const CLOSE_OK: MethodId = (20, 41);
}

pub mod exchange {
    use super::MethodId;
    pub const DECLARE: MethodId = (40, 10);
    pub const DECLARE_OK: MethodId = (40, 11);
    pub const DELETE: MethodId = (40, 20);
    pub const DELETE_OK: MethodId = (40, 21);
    pub const BIND: MethodId = (40, 30);
    pub const BIND_OK: MethodId = (40, 31);
}

pub mod queue {
    use super::MethodId;
    pub const DECLARE: MethodId = (50, 10);
    pub const DECLARE_OK: MethodId = (50, 11);
    pub const BIND: MethodId = (50, 20);
    pub const BIND_OK: MethodId = (50, 21);
    pub const PURGE: MethodId = (50, 30);
    pub const PURGE_OK: MethodId = (50, 31);
    pub const DELETE: MethodId = (50, 40);
    pub const DELETE_OK: MethodId = (50, 41);
    pub const UNBIND: MethodId = (50, 50);
    pub const UNBIND_OK: MethodId = (50, 51);
}

pub mod basic {
    use super::MethodId;
    pub const QOS: MethodId = (60, 10);
    pub const QOS_OK: MethodId = (60, 11);
    pub const CONSUME: MethodId = (60, 20);
    pub const CONSUME_OK: MethodId = (60, 21);
    pub const CANCEL: MethodId = (60, 30);
    pub const CANCEL_OK: MethodId = (60, 31);
    pub const PUBLISH: MethodId = (60, 40);
    pub const RETURN: MethodId = (60, 50);
    pub const DELIVER: MethodId = (60, 60);
    pub const GET: MethodId = (60, 70);
    pub const GET_OK: MethodId = (60, 71);
    pub const GET_EMPTY: MethodId = (60, 72);
    pub const ACK: MethodId = (60, 80);
    pub const REJECT: MethodId = (60, 90);
    pub const RECOVER: MethodId = (60, 110);
    pub const RECOVER_OK: MethodId = (60, 111);
    pub const NACK: MethodId = (60, 120);
}

pub mod confirm {
    use super::MethodId;
    pub const SELECT: MethodId = (85, 10);
    pub const SELECT_OK: MethodId = (85, 11);
}

pub mod tx {
    use super::MethodId;
    pub const SELECT: MethodId = (90, 10);
    pub const SELECT_OK: MethodId = (90, 11);
    pub const COMMIT: MethodId = (90, 20);
    pub const COMMIT_OK: MethodId = (90, 21);
    pub const ROLLBACK: MethodId = (90, 30);
    pub const ROLLBACK_OK: MethodId = (90, 31);
}

pub fn start_ok(properties: &Table, mechanism: &str, response: &[u8], locale: &str) -> Vec<u8> {
    Octets::method(connection::START_OK).table(properties).short(mechanism).long(response).short(locale).0
}

pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat_seconds: u16) -> Vec<u8> {
    Octets::method(connection::TUNE_OK).u16(channel_max).u32(frame_max).u16(heartbeat_seconds).0
}

pub fn connection_open(vhost: &str) -> Vec<u8> {
    Octets::method(connection::OPEN).short(vhost).short("").u8(0).0
}

pub fn close(id: MethodId, code: u16, text: &str) -> Vec<u8> {
    Octets::method(id).u16(code).short(text).u16(0).u16(0).0
}

pub fn channel_open() -> Vec<u8> {
    Octets::method(channel::OPEN).short("").0
}

/// Bits of `queue.declare`.
pub const PASSIVE: u8 = 1;
pub const DURABLE: u8 = 2;
pub const EXCLUSIVE: u8 = 4;
pub const AUTO_DELETE: u8 = 8;
pub const NO_WAIT: u8 = 16;

pub fn queue_declare(name: &str, bits: u8, arguments: &Table) -> Vec<u8> {
    Octets::method(queue::DECLARE).u16(0).short(name).u8(bits).table(arguments).0
}

pub fn queue_bind(queue: &str, exchange: &str, routing_key: &str) -> Vec<u8> {
    let method = Octets::method(queue::BIND).u16(0).short(queue).short(exchange).short(routing_key);
    method.u8(0).table(&Table::new()).0
}

pub fn queue_unbind(queue: &str, exchange: &str, routing_key: &str) -> Vec<u8> {
    let method = Octets::method(queue::UNBIND).u16(0).short(queue).short(exchange).short(routing_key);
    method.table(&Table::new()).0
}

pub fn queue_delete(name: &str) -> Vec<u8> {
    Octets::method(queue::DELETE).u16(0).short(name).u8(0).0
}

pub fn queue_purge(name: &str) -> Vec<u8> {
    Octets::method(queue::PURGE).u16(0).short(name).u8(0).0
}

/// Bit of `exchange.declare`; passive and durable are those of `queue.declare`.
pub const EXCHANGE_AUTO_DELETE: u8 = 4;

pub fn exchange_declare(name: &str, kind: &str, bits: u8) -> Vec<u8> {
    Octets::method(exchange::DECLARE).u16(0).short(name).short(kind).u8(bits).table(&Table::new()).0
}

pub fn exchange_bind(destination: &str, source: &str, routing_key: &str) -> Vec<u8> {
    let method = Octets::method(exchange::BIND).u16(0).short(destination).short(source).short(routing_key);
    method.u8(0).table(&Table::new()).0
}

pub fn exchange_delete(name: &str) -> Vec<u8> {
    Octets::method(exchange::DELETE).u16(0).short(name).u8(0).0
}

/// Bits of `basic.consume`.
pub const NO_ACK: u8 = 2;
pub const CONSUME_EXCLUSIVE: u8 = 4;

pub fn consume(queue: &str, tag: &str, bits: u8) -> Vec<u8> {
    Octets::method(basic::CONSUME).u16(0).short(queue).short(tag).u8(bits).table(&Table::new()).0
}

pub fn cancel(tag: &str) -> Vec<u8> {
    Octets::method(basic::CANCEL).short(tag).u8(0).0
}

/// `all_consumers` is the `global` bit: in RabbitMQ's reading, whether the count limits the channel.
pub fn qos(prefetch_count: u16, all_consumers: bool) -> Vec<u8> {
    Octets::method(basic::QOS).u32(0).u16(prefetch_count).u8(u8::from(all_consumers)).0
}

pub const MANDATORY: u8 = 1;
pub const IMMEDIATE: u8 = 2;

pub fn publish(exchange: &str, routing_key: &str, bits: u8) -> Vec<u8> {
    Octets::method(basic::PUBLISH).u16(0).short(exchange).short(routing_key).u8(bits).0
}

/// A content header of class basic; `properties` are the flags and the list.
pub fn content_header(body_size: u64, properties: &[u8]) -> Vec<u8> {
    Octets::new().u16(60).u16(0).u64(body_size).raw(properties).0
}

pub const NO_PROPERTIES: [u8; 2] = [0, 0];

pub fn get(queue: &str, no_ack: bool) -> Vec<u8> {
    Octets::method(basic::GET).u16(0).short(queue).u8(u8::from(no_ack)).0
}

pub fn ack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    Octets::method(basic::ACK).u64(delivery_tag).u8(u8::from(multiple)).0
}

/// Requeues always.
pub fn nack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    Octets::method(basic::NACK).u64(delivery_tag).u8(u8::from(multiple) | 2).0
}

pub fn reject(delivery_tag: u64, requeue: bool) -> Vec<u8> {
    Octets::method(basic::REJECT).u64(delivery_tag).u8(u8::from(requeue)).0
}

pub fn recover(requeue: bool) -> Vec<u8> {
    Octets::method(basic::RECOVER).u8(u8::from(requeue)).0
}

pub fn confirm_select() -> Vec<u8> {
    Octets::method(confirm::SELECT).u8(0).0
}
