//! What a message looks like that was dead-lettered: its history in `x-death`, and where it is to go.
//!
//! As RabbitMQ 4, with one departure, which comes from keeping the history in the message and nowhere else: an `x-death`
//! header that a publisher sent counts as history (as in RabbitMQ before 4.0).

use super::DeathReason;
use crate::message::MessageView;
use crate::protocol::field_table::{FieldTable, FieldValue, TableRef};
use crate::protocol::properties::Properties;

/// One death: why, where and when, and what the queue has to say about the way from there.
#[derive(Clone, Copy, Debug)]
pub struct Death<'a> {
    /// Why.
    pub reason: DeathReason,
    /// The name of the queue that the message died in.
    pub queue: &'a [u8],
    /// When, in seconds since 1970.
    pub time_seconds: u64,
    /// The queue's `x-dead-letter-routing-key`, which replaces the message's own keys.
    pub routing_key: Option<&'a [u8]>,
}

/// A message on its way to the dead letter exchange. Its body stays what it was.
#[derive(Clone, Debug)]
pub struct DeadLettered {
    /// The new properties, raw.
    pub properties: Vec<u8>,
    /// The keys to route with; the first one is the message's new routing key, the others come from `CC` and `BCC`.
    pub routing_keys: Vec<Vec<u8>>,
    /// The history, newest first: the queue, and whether it was a rejection.
    deaths: Vec<(Vec<u8>, bool)>,
}

impl DeadLettered {
    /// Whether the message must not go to `queue`, which it was routed to: it died there before and no consumer has
    /// rejected it since, so that it would run in circles without anybody's doing.
    pub fn is_cycle(&self, queue: &[u8]) -> bool {
        let Some(last) = self.deaths.iter().position(|(name, _)| name == queue) else { return false };
        self.deaths[..=last].iter().all(|(_, is_rejected)| !is_rejected)
    }
}

/// Writes a death into a message: `x-death`, `x-first-death-*` and `x-last-death-*`; the expiration moves into the
/// history and `BCC` is removed.
///
/// The caller routes the result from the dead letter exchange with its routing keys, and leaves out the queues that
/// [`DeadLettered::is_cycle`] names.
pub fn dead_lettered(message: MessageView<'_>, death: &Death<'_>) -> DeadLettered {
    let mut properties = Properties::decode(message.properties).expect("properties are validated where they come in");
    let mut headers = properties.headers.map(|table| table.to_owned_table()).unwrap_or_default();
    let mut recorded_keys = vec![message.routing_key.to_vec()];
    recorded_keys.extend(header_keys(headers.get("CC")));
    let bcc_keys = header_keys(headers.get("BCC"));
    if death.routing_key.is_some() {
        headers.remove("CC");
    }
    headers.0.retain(|(name, _)| name != b"BCC");

    let history = match headers.get("x-death") {
        Some(FieldValue::Array(deaths)) => tables(deaths),
        _ => vec![],
    };
    let is_first = history.is_empty();
    let history = with_death(history, message.exchange, &recorded_keys, death, properties.expiration);
    let deaths = history.iter().map(|table| (text(table, "queue"), text(table, "reason") == b"rejected")).collect();
    headers.insert("x-death", FieldValue::Array(history.into_iter().map(FieldValue::Table).collect()));
    for ends in if is_first { &["first", "last"][..] } else { &["last"] } {
        headers.insert(&format!("x-{ends}-death-reason"), death.reason.name().into());
        headers.insert(&format!("x-{ends}-death-queue"), long_string(death.queue));
        headers.insert(&format!("x-{ends}-death-exchange"), long_string(message.exchange));
    }

    let headers = headers.to_octets();
    properties.headers = Some(TableRef::new(&headers).expect("the broker writes tables that it can read"));
    properties.expiration = None;
    let mut encoded = Vec::with_capacity(headers.len() + message.properties.len());
    properties.encode(&mut encoded);
    let routing_keys = match death.routing_key {
        Some(key) => vec![key.to_vec()],
        None => recorded_keys.into_iter().chain(bcc_keys).collect(),
    };
    DeadLettered { properties: encoded, routing_keys, deaths }
}

/// The history, newest first, with one more death: counted up and moved to the front where the queue and the reason
/// are in it, else a new entry.
fn with_death(
    mut history: Vec<FieldTable>,
    exchange: &[u8],
    routing_keys: &[Vec<u8>],
    death: &Death<'_>,
    expiration: Option<&[u8]>,
) -> Vec<FieldTable> {
    let reason = death.reason.name();
    let known = history
        .iter()
        .position(|entry| text(entry, "queue") == death.queue && text(entry, "reason") == reason.as_bytes());
    let entry = if let Some(index) = known {
        let mut entry = history.remove(index);
        let count = entry.get("count").and_then(FieldValue::as_i64).unwrap_or(1);
        entry.insert("count", FieldValue::I64(count.saturating_add(1)));
        entry
    } else {
        let keys = routing_keys.iter().map(|key| long_string(key)).collect();
        let mut entry = FieldTable::default();
        if let Some(expiration) = expiration {
            entry.insert("original-expiration", long_string(expiration));
        }
        entry.insert("count", FieldValue::I64(1));
        entry.insert("reason", reason.into());
        entry.insert("queue", long_string(death.queue));
        entry.insert("time", FieldValue::Timestamp(death.time_seconds));
        entry.insert("exchange", long_string(exchange));
        entry.insert("routing-keys", FieldValue::Array(keys));
        entry
    };
    history.insert(0, entry);
    history
}

fn long_string(octets: &[u8]) -> FieldValue {
    FieldValue::LongString(octets.to_vec())
}

/// The tables among `values`.
fn tables(values: &[FieldValue]) -> Vec<FieldTable> {
    let tables = values.iter().filter_map(|value| match value {
        FieldValue::Table(table) => Some(table.clone()),
        _ => None,
    });
    tables.collect()
}

/// A long string of a death's entry; empty where it is not there, for publishers may send what they like.
fn text(entry: &FieldTable, name: &str) -> Vec<u8> {
    match entry.get(name) {
        Some(FieldValue::LongString(octets)) => octets.clone(),
        _ => vec![],
    }
}

/// The keys in a `CC` or `BCC` header. What is longer than a routing key can be is none.
fn header_keys(header: Option<&FieldValue>) -> Vec<Vec<u8>> {
    let Some(FieldValue::Array(values)) = header else { return vec![] };
    let keys = values.iter().filter_map(|value| match value {
        FieldValue::LongString(key) if key.len() <= crate::limits::SHORT_STRING_OCTETS_MAX => Some(key.clone()),
        _ => None,
    });
    keys.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::BodyView;

    fn message<'a>(exchange: &'a [u8], routing_key: &'a [u8], properties: &'a [u8]) -> MessageView<'a> {
        MessageView { exchange, routing_key, properties, body: BodyView::Slice(b"body") }
    }

    fn raw(headers: &FieldTable, expiration: Option<&[u8]>) -> Vec<u8> {
        let octets = headers.to_octets();
        let table = TableRef::new(&octets).expect("a test writes good tables");
        let mut out = vec![];
        Properties { headers: Some(table), expiration, content_type: Some(b"text/plain"), ..Properties::default() }
            .encode(&mut out);
        out
    }

    fn headers_of(properties: &[u8]) -> FieldTable {
        let properties = Properties::decode(properties).expect("the result is well-formed");
        properties.headers.expect("a dead letter has headers").to_owned_table()
    }

    fn history_of(properties: &[u8]) -> Vec<FieldTable> {
        match headers_of(properties).get("x-death") {
            Some(FieldValue::Array(deaths)) => tables(deaths),
            other => panic!("x-death is {other:?}"),
        }
    }

    fn death(reason: DeathReason, queue: &'static [u8]) -> Death<'static> {
        Death { reason, queue, time_seconds: 1_700_000_000, routing_key: None }
    }

    fn keys(names: &[&str]) -> FieldValue {
        FieldValue::Array(names.iter().map(|name| FieldValue::from(*name)).collect())
    }

    /// Goal: the first death is recorded as clients expect it: fields, types and order of `RabbitMQ`.
    /// Method: a message with an expiration and other properties expires once.
    #[test]
    fn the_first_death_is_recorded() {
        let mut sent = FieldTable::default();
        sent.insert("mine", FieldValue::I32(1));
        let properties = raw(&sent, Some(b"250"));
        let dead = dead_lettered(message(b"work", b"key", &properties), &death(DeathReason::Expired, b"q"));
        let decoded = Properties::decode(&dead.properties).expect("the result is well-formed");
        assert_eq!(decoded.expiration, None);
        assert_eq!(decoded.content_type, Some(&b"text/plain"[..]));
        assert_eq!(dead.routing_keys, [b"key"]);

        let headers = headers_of(&dead.properties);
        assert_eq!(headers.get("mine"), Some(&FieldValue::I32(1)));
        for ends in ["first", "last"] {
            assert_eq!(headers.get(&format!("x-{ends}-death-reason")), Some(&"expired".into()));
            assert_eq!(headers.get(&format!("x-{ends}-death-queue")), Some(&"q".into()));
            assert_eq!(headers.get(&format!("x-{ends}-death-exchange")), Some(&"work".into()));
        }
        let expected = FieldTable(vec![
            (b"original-expiration".to_vec(), "250".into()),
            (b"count".to_vec(), FieldValue::I64(1)),
            (b"reason".to_vec(), "expired".into()),
            (b"queue".to_vec(), "q".into()),
            (b"time".to_vec(), FieldValue::Timestamp(1_700_000_000)),
            (b"exchange".to_vec(), "work".into()),
            (b"routing-keys".to_vec(), keys(&["key"])),
        ]);
        assert_eq!(history_of(&dead.properties), [expected]);
    }

    /// Goal: deaths are ordered by recency, one entry for each queue and reason, the time is that of the first one.
    /// Method: die in a, in b, then in a again later.
    #[test]
    fn a_repeated_death_is_counted_and_comes_first() {
        let first = dead_lettered(message(b"x", b"k", &[0, 0]), &death(DeathReason::Rejected, b"a"));
        let second = dead_lettered(message(b"dlx", b"k", &first.properties), &death(DeathReason::MaxLen, b"b"));
        let later = Death { time_seconds: 1_800_000_000, ..death(DeathReason::Rejected, b"a") };
        let third = dead_lettered(message(b"dlx", b"k", &second.properties), &later);
        let history = history_of(&third.properties);
        let summary: Vec<_> = history.iter().map(|entry| (text(entry, "queue"), entry.get("count").cloned())).collect();
        let count = |count| Some(FieldValue::I64(count));
        assert_eq!(summary, [(b"a".to_vec(), count(2)), (b"b".to_vec(), count(1))]);
        assert_eq!(history[0].get("time"), Some(&FieldValue::Timestamp(1_700_000_000)));
        assert_eq!(history[0].get("exchange"), Some(&"x".into()), "the exchange of the first time");
        let headers = headers_of(&third.properties);
        assert_eq!(headers.get("x-first-death-queue"), Some(&"a".into()));
        assert_eq!(headers.get("x-last-death-queue"), Some(&"a".into()));
        assert_eq!(headers.get("x-last-death-exchange"), Some(&"dlx".into()));
    }

    /// Goal: a message may come back to a queue only where a consumer has rejected it since it died there.
    /// Method: several histories, newest last, each against the same target.
    #[test]
    fn a_cycle_needs_a_rejection() {
        use DeathReason::{DeliveryLimit, Expired, MaxLen, Rejected};
        let check = |deaths: &[(DeathReason, &'static [u8])], is_cycle: bool| {
            let mut properties = vec![0, 0];
            let mut last = None;
            for &(reason, queue) in deaths {
                let dead = dead_lettered(message(b"", b"k", &properties), &death(reason, queue));
                properties.clone_from(&dead.properties);
                last = Some(dead);
            }
            assert_eq!(last.expect("there is a death").is_cycle(b"q"), is_cycle, "{deaths:?}");
        };
        check(&[(Expired, b"q")], true);
        check(&[(MaxLen, b"q")], true);
        check(&[(DeliveryLimit, b"q")], true);
        check(&[(Rejected, b"q")], false);
        check(&[(Expired, b"other")], false);
        check(&[(Expired, b"q"), (MaxLen, b"other")], true);
        check(&[(Expired, b"q"), (Rejected, b"other")], false);
        check(&[(Rejected, b"other"), (Expired, b"q")], true);
        check(&[(Rejected, b"q"), (Expired, b"q")], true);
    }

    /// Goal: keys of CC and BCC are routed to; CC is recorded and stays, BCC is neither.
    /// Method: a message with both dies in a queue without and in one with a routing key of its own.
    #[test]
    fn cc_and_bcc_are_routed_to() {
        let mut sent = FieldTable::default();
        sent.insert("CC", keys(&["cc 1", "cc 2"]));
        sent.insert("BCC", keys(&["bcc"]));
        let properties = raw(&sent, None);
        let dead = dead_lettered(message(b"", b"key", &properties), &death(DeathReason::Rejected, b"q"));
        assert_eq!(dead.routing_keys, [&b"key"[..], b"cc 1", b"cc 2", b"bcc"]);
        let headers = headers_of(&dead.properties);
        assert_eq!(headers.get("BCC"), None);
        assert_eq!(headers.get("CC"), Some(&keys(&["cc 1", "cc 2"])));
        assert_eq!(history_of(&dead.properties)[0].get("routing-keys"), Some(&keys(&["key", "cc 1", "cc 2"])));

        let replaced = Death { routing_key: Some(b"grave"), ..death(DeathReason::Rejected, b"q") };
        let dead = dead_lettered(message(b"", b"key", &properties), &replaced);
        assert_eq!(dead.routing_keys, [b"grave"]);
        assert_eq!(history_of(&dead.properties)[0].get("routing-keys"), Some(&keys(&["key", "cc 1", "cc 2"])));
    }

    /// Goal: whatever a publisher sends as `x-death` does no harm.
    /// Method: a text, an array of other things, and an entry with a count at the limit.
    #[test]
    fn a_publishers_x_death_does_no_harm() {
        let check = |x_death: FieldValue, count: i64| {
            let mut sent = FieldTable::default();
            sent.insert("x-death", x_death);
            let properties = raw(&sent, None);
            let dead = dead_lettered(message(b"", b"k", &properties), &death(DeathReason::Expired, b"q"));
            assert_eq!(history_of(&dead.properties)[0].get("count"), Some(&FieldValue::I64(count)));
        };
        check("a text".into(), 1);
        check(FieldValue::Array(vec![FieldValue::Void, FieldValue::I32(3)]), 1);
        let mut entry = FieldTable::default();
        entry.insert("queue", "q".into());
        entry.insert("reason", "expired".into());
        check(FieldValue::Array(vec![FieldValue::Table(entry.clone())]), 2);
        entry.insert("count", FieldValue::I64(i64::MAX));
        check(FieldValue::Array(vec![FieldValue::Table(entry)]), i64::MAX);
    }
}
