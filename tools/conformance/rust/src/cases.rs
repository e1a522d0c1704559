//! What lapin's API offers, case by case. A case fails by panicking.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::{
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
        BasicPublishOptions, BasicQosOptions, BasicRecoverOptions, BasicRejectOptions, ConfirmSelectOptions,
        ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, DecimalValue, FieldArray, FieldTable},
    BasicProperties, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};

use crate::{next, refused, table, text, unique, url, within, Case, Session};

macro_rules! cases {
    ($($name:literal => $function:ident,)*) => {
        pub static ALL: &[Case] = &[$(Case { name: $name, body: |session| Box::pin($function(session)) }),*];
    };
}

cases! {
    "connects and negotiates" => connects_and_negotiates,
    "bad password is 403 and unknown vhost 530" => refused_logins,
    "an idle connection lives by heartbeats" => heartbeats,
    "update-secret" => update_secret,
    "direct, fanout and topic exchanges" => exchange_kinds,
    "headers exchanges" => headers_exchanges,
    "exchange to exchange and alternate" => exchange_to_exchange,
    "queues named, inspected, purged, deleted" => queues,
    "errors with code and text" => errors,
    "acknowledgements of all kinds" => acknowledgements,
    "recover" => recover,
    "prefetch by consumer and by channel" => prefetch,
    "returns come before confirms" => returns,
    "thousands of confirms in flight" => confirms,
    "nacks by a full queue" => nacks,
    "transactions" => transactions,
    "a deleted queue cancels its consumers" => cancel_notify,
    "cancel, exclusive consumers and priorities" => consumers,
    "properties and header types both ways" => properties,
    "large and empty bodies" => bodies,
    "time-outs, dead letters, bounds, priorities" => extensions,
    "remote calls by direct reply-to" => reply_to,
    "many channels" => many_channels,
    "a hundred thousand messages in order" => a_hundred_thousand,
}

async fn connects_and_negotiates(s: Session) {
    let configuration = s.connection.configuration();
    assert_eq!(configuration.channel_max(), 2047);
    assert_eq!(configuration.frame_max(), 131_072);
}

async fn refused_logins(s: Session) {
    for (password, vhost) in [("wrong", "%2f"), ("guest", "nowhere")] {
        let url = url(&s.address, password, vhost, "");
        let attempt = Connection::connect(&url, ConnectionProperties::default());
        let error = within(attempt, "a refusal").await.err().expect("connected");
        let said = format!("{error} {error:?}");
        let expected = if vhost == "nowhere" { "vhost nowhere not found" } else { "Login was refused" };
        assert!(said.contains(expected), "{said}");
    }
}

async fn heartbeats(s: Session) {
    let url = url(&s.address, "guest", "%2f", "?heartbeat=1");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.expect("a connection");
    tokio::time::sleep(Duration::from_millis(3300)).await;
    let channel = connection.create_channel().await.expect("still alive");
    channel.close(200, "done".into()).await.expect("channel closed");
    connection.close(200, "done".into()).await.expect("connection closed");
}

async fn update_secret(s: Session) {
    s.connection.update_secret("guest".into(), "renewed".into()).await.expect("update-secret-ok");
    s.queue(FieldTable::default()).await;
}

async fn exchange_kinds(s: Session) {
    let keys = ["a", "b", "a.x"];
    let all: &[(ExchangeKind, &[(&str, &[&str])])] = &[
        (ExchangeKind::Direct, &[("a", &["a"]), ("b", &["b"])]),
        (ExchangeKind::Fanout, &[("x", &keys), ("y", &keys)]),
        (ExchangeKind::Topic, &[("a.#", &["a", "a.x"]), ("*", &["a", "b"]), ("#.x", &["a.x"]), ("#", &keys)]),
    ];
    for (kind, bindings) in all {
        let exchange = s.exchange(kind.clone(), FieldTable::default()).await;
        let mut queues = Vec::new();
        for (pattern, _) in *bindings {
            let queue = s.queue(FieldTable::default()).await;
            let bound = s.channel.queue_bind(
                queue.clone(),
                exchange.clone(),
                (*pattern).into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.expect("a binding");
            queues.push(queue);
        }
        for key in keys {
            s.publish(exchange.as_str(), key, key.as_bytes(), BasicProperties::default()).await;
        }
        for ((pattern, expected), queue) in bindings.iter().zip(&queues) {
            assert_eq!(s.bodies(queue, expected.len()).await, *expected, "{kind:?} {pattern}");
        }
        s.channel
            .queue_unbind(queues[0].clone(), exchange.clone(), bindings[0].0.into(), FieldTable::default())
            .await
            .expect("unbound");
    }
}

async fn headers_exchanges(s: Session) {
    let exchange = s.exchange(ExchangeKind::Headers, FieldTable::default()).await;
    let sent = [
        table(&[("a", AMQPValue::LongInt(1)), ("b", text("two"))]),
        table(&[("a", AMQPValue::LongLongInt(1)), ("x-y", text("z"))]),
        table(&[("b", text("two"))]),
    ];
    for (kind, fields, expected) in [
        ("all", table(&[("a", AMQPValue::LongInt(1)), ("b", text("two"))]), vec!["0"]),
        ("any", table(&[("b", text("two")), ("c", AMQPValue::Boolean(true))]), vec!["0", "2"]),
        ("all-with-x", table(&[("x-y", text("z"))]), vec!["1"]),
        ("any-with-x", table(&[("c", AMQPValue::Void), ("x-y", text("z"))]), vec!["1"]),
    ] {
        let queue = s.queue(FieldTable::default()).await;
        let mut arguments = fields;
        arguments.insert("x-match".into(), text(kind));
        s.channel
            .queue_bind(queue.clone(), exchange.clone(), "".into(), QueueBindOptions::default(), arguments)
            .await
            .expect("a binding");
        for (number, headers) in sent.iter().enumerate() {
            let properties = BasicProperties::default().with_headers(headers.clone());
            s.publish(exchange.as_str(), "", number.to_string().as_bytes(), properties).await;
        }
        assert_eq!(s.bodies(&queue, expected.len()).await, expected, "{kind}");
    }
}

async fn exchange_to_exchange(s: Session) {
    let last = s.exchange(ExchangeKind::Fanout, FieldTable::default()).await;
    let alternate = table(&[("alternate-exchange", text(last.as_str()))]);
    let entry = s.exchange(ExchangeKind::Direct, alternate).await;
    let inner = s.exchange(ExchangeKind::Fanout, FieldTable::default()).await;
    let bound = s.channel.exchange_bind(
        inner.clone(),
        entry.clone(),
        "k".into(),
        ExchangeBindOptions::default(),
        FieldTable::default(),
    );
    bound.await.expect("a binding");
    let (one, two) = (s.queue(FieldTable::default()).await, s.queue(FieldTable::default()).await);
    for (queue, exchange) in [(&one, &inner), (&two, &last)] {
        s.channel
            .queue_bind(queue.clone(), exchange.clone(), "".into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .expect("a binding");
    }
    s.publish(entry.as_str(), "k", b"1", BasicProperties::default()).await;
    s.publish(entry.as_str(), "other", b"2", BasicProperties::default()).await;
    assert_eq!(s.bodies(&one, 1).await, ["1"]);
    assert_eq!(s.bodies(&two, 1).await, ["2"]);
    s.channel
        .exchange_unbind(inner, entry, "k".into(), ExchangeUnbindOptions::default(), FieldTable::default())
        .await
        .expect("unbound");
}

async fn queues(s: Session) {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = s.channel.queue_declare("".into(), options, FieldTable::default()).await.expect("a queue");
    let name = queue.name().clone();
    assert!(name.as_str().starts_with("amq.gen-"), "{name}");
    for _ in 0..3 {
        s.publish("", name.as_str(), b"x", BasicProperties::default()).await;
    }
    s.await_ready(&name, 3).await;
    assert_eq!(s.channel.queue_purge(name.clone(), QueuePurgeOptions::default()).await.expect("purged"), 3);
    s.publish("", name.as_str(), b"x", BasicProperties::default()).await;
    assert_eq!(s.channel.queue_delete(name, QueueDeleteOptions::default()).await.expect("deleted"), 1);
}

async fn errors(s: Session) {
    let missing = unique("q");
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let result = s.new_channel().await.queue_declare(missing.clone(), passive, FieldTable::default()).await;
    refused(result, 404, &format!("NOT_FOUND - no queue '{missing}' in vhost '/'"));
    let result = s.new_channel().await.basic_get(missing.clone(), BasicGetOptions::default()).await;
    refused(result, 404, &format!("NOT_FOUND - no queue '{missing}' in vhost '/'"));
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let result = s
        .new_channel()
        .await
        .exchange_declare(missing.clone(), ExchangeKind::Direct, passive, FieldTable::default())
        .await;
    refused(result, 404, &format!("NOT_FOUND - no exchange '{missing}' in vhost '/'"));
    let queue = s.queue(FieldTable::default()).await;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let arguments = table(&[("x-max-length", AMQPValue::LongInt(7))]);
    let result = s.new_channel().await.queue_declare(queue.clone(), options, arguments).await;
    refused(
        result,
        406,
        &format!(
            "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue}' in vhost '/': \
         received the value '7' of type 'signedint' but current is none"
        ),
    );
    let options = QueueDeclareOptions::default();
    let result = s.new_channel().await.queue_declare("amq.mine".into(), options, FieldTable::default()).await;
    refused(result, 403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'");
    let result = s.new_channel().await.tx_commit().await;
    refused(result, 406, "PRECONDITION_FAILED - channel is not transactional");
    let other = Session::open(&s.address).await.expect("a connection");
    let result = other.channel.basic_get(queue.clone(), BasicGetOptions::default()).await;
    refused(result, 405, &format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be originally \
         declared on another connection or the exclusive property value does not match that of the original declaration."));
    assert_eq!(s.ready(&queue).await, 0, "the connection lives on");
}

async fn acknowledgements(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    for number in 0..8 {
        s.publish("", queue.as_str(), number.to_string().as_bytes(), BasicProperties::default()).await;
    }
    let channel = s.new_channel().await;
    let mut consumer = s.consume(&channel, queue.as_str(), "", false, FieldTable::default()).await;
    let mut got = Vec::new();
    for _ in 0..8 {
        got.push(next(&mut consumer).await);
    }
    got[1].ack(BasicAckOptions { multiple: true }).await.expect("ack");
    got[2].nack(BasicNackOptions { multiple: false, requeue: false }).await.expect("nack");
    got[3].reject(BasicRejectOptions { requeue: false }).await.expect("reject");
    got[4].ack(BasicAckOptions::default()).await.expect("ack");
    channel.close(200, "done".into()).await.expect("closed");
    let channel = s.new_channel().await;
    let mut consumer = s.consume(&channel, queue.as_str(), "", false, FieldTable::default()).await;
    for expected in ["5", "6", "7"] {
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.data.as_slice(), delivery.redelivered), (expected.as_bytes(), true));
        if expected == "6" {
            delivery.nack(BasicNackOptions { multiple: true, requeue: true }).await.expect("nack");
        }
    }
    let mut back = vec![next(&mut consumer).await.data, next(&mut consumer).await.data];
    back.sort();
    assert_eq!(back, [b"5", b"6"]);
    channel.basic_ack(0, BasicAckOptions { multiple: true }).await.expect("ack");
    channel.close(200, "done".into()).await.expect("closed");
    s.await_ready(&queue, 0).await;
}

async fn recover(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let mut consumer = s.consume(&s.channel, queue.as_str(), "", false, FieldTable::default()).await;
    s.publish("", queue.as_str(), b"x", BasicProperties::default()).await;
    assert!(!next(&mut consumer).await.redelivered);
    s.channel.basic_recover(BasicRecoverOptions { requeue: true }).await.expect("recover-ok");
    assert!(next(&mut consumer).await.redelivered);
}

async fn prefetch(s: Session) {
    for (global, expected) in [(false, 6), (true, 3)] {
        let queue = s.queue(FieldTable::default()).await;
        let channel = s.new_channel().await;
        channel.basic_qos(3, BasicQosOptions { global }).await.expect("qos-ok");
        let one = s.consume(&channel, queue.as_str(), "", false, FieldTable::default()).await;
        let two = s.consume(&channel, queue.as_str(), "", false, FieldTable::default()).await;
        let mut both = futures_lite::stream::race(one, two);
        for _ in 0..10 {
            s.publish("", queue.as_str(), b"x", BasicProperties::default()).await;
        }
        s.await_ready(&queue, 10 - expected).await;
        let mut got = Vec::new();
        for _ in 0..expected {
            got.push(within(both.next(), "a delivery").await.expect("ended").expect("a delivery"));
        }
        got[0].ack(BasicAckOptions::default()).await.expect("ack");
        within(both.next(), "one more").await.expect("ended").expect("a delivery");
        s.await_ready(&queue, 9 - expected).await;
    }
}

async fn returns(s: Session) {
    s.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("select-ok");
    for number in 0..50_u32 {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let body = vec![b'x'; number as usize];
        let confirm =
            s.channel.basic_publish("".into(), unique("nowhere"), options, &body, BasicProperties::default()).await;
        let confirmation = within(confirm.expect("a publish"), "a confirm").await.expect("a confirm");
        // lapin hands the returned message over with the confirm, so it must have come before.
        let Confirmation::Ack(Some(returned)) = confirmation else {
            panic!("{confirmation:?} without its return");
        };
        assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(returned.delivery.data, body);
    }
}

async fn confirms(s: Session) {
    s.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("select-ok");
    let queue = s.queue(FieldTable::default()).await;
    let mut pending = Vec::new();
    for number in 0..10_000_u32 {
        let properties = BasicProperties::default().with_delivery_mode(1 + (number % 2) as u8);
        let options = BasicPublishOptions::default();
        pending.push(
            s.channel.basic_publish("".into(), queue.clone(), options, b"x", properties).await.expect("a publish"),
        );
    }
    for confirm in pending {
        let confirmation = within(confirm, "a confirm").await.expect("a confirm");
        assert!(confirmation.is_ack(), "{confirmation:?}");
    }
    assert_eq!(s.ready(&queue).await, 10_000);
}

async fn nacks(s: Session) {
    s.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("select-ok");
    let queue =
        s.queue(table(&[("x-max-length", AMQPValue::LongInt(2)), ("x-overflow", text("reject-publish"))])).await;
    for number in 0..5 {
        let options = BasicPublishOptions::default();
        let confirm =
            s.channel.basic_publish("".into(), queue.clone(), options, b"x", BasicProperties::default()).await;
        let confirmation = within(confirm.expect("a publish"), "a confirm").await.expect("a confirm");
        assert_eq!(confirmation.is_ack(), number < 2, "{number}: {confirmation:?}");
    }
}

async fn transactions(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let channel = s.new_channel().await;
    channel.tx_select().await.expect("select-ok");
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), queue.clone(), options, b"no", BasicProperties::default())
        .await
        .expect("a publish");
    channel.tx_rollback().await.expect("rollback-ok");
    channel
        .basic_publish("".into(), queue.clone(), options, b"yes", BasicProperties::default())
        .await
        .expect("a publish");
    assert_eq!(s.ready(&queue).await, 0);
    channel.tx_commit().await.expect("commit-ok");
    assert_eq!(s.bodies(&queue, 1).await, ["yes"]);
}

async fn cancel_notify(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let mut consumer = s.consume(&s.channel, queue.as_str(), "", true, FieldTable::default()).await;
    s.new_channel().await.queue_delete(queue, QueueDeleteOptions::default()).await.expect("deleted");
    let end = within(consumer.next(), "the cancellation").await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    s.queue(FieldTable::default()).await;
}

async fn consumers(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let options = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let alone = s.channel.basic_consume(queue.clone(), "alone".into(), options, FieldTable::default()).await;
    drop(alone.expect("a consumer"));
    s.channel.basic_cancel("alone".into(), BasicCancelOptions::default()).await.ok();
    let other = s.new_channel().await;
    let alone =
        other.basic_consume(queue.clone(), "again".into(), options, FieldTable::default()).await.expect("a consumer");
    let options = BasicConsumeOptions::default();
    let result = s.new_channel().await.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await;
    refused(result.map(|_| ()), 403, &format!("ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"));
    other.basic_cancel("again".into(), BasicCancelOptions::default()).await.expect("cancel-ok");
    drop(alone);
    let channel = s.new_channel().await;
    channel.basic_qos(1, BasicQosOptions::default()).await.expect("qos-ok");
    let priority = |level| table(&[("x-priority", AMQPValue::LongInt(level))]);
    let mut low = s.consume(&channel, queue.as_str(), "", false, priority(1)).await;
    let mut high = s.consume(&channel, queue.as_str(), "", false, priority(5)).await;
    s.publish("", queue.as_str(), b"first", BasicProperties::default()).await;
    s.publish("", queue.as_str(), b"second", BasicProperties::default()).await;
    assert_eq!(next(&mut high).await.data, b"first");
    assert_eq!(next(&mut low).await.data, b"second");
}

async fn properties(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let mut list = FieldArray::default();
    list.push(AMQPValue::LongInt(1));
    list.push(text("two"));
    list.push(AMQPValue::Void);
    let headers = table(&[
        ("bool", AMQPValue::Boolean(true)),
        ("i8", AMQPValue::ShortShortInt(-7)),
        ("u8", AMQPValue::ShortShortUInt(250)),
        ("i16", AMQPValue::ShortInt(-700)),
        ("u16", AMQPValue::ShortUInt(65_000)),
        ("i32", AMQPValue::LongInt(-70_000)),
        ("u32", AMQPValue::LongUInt(4_000_000_000)),
        ("i64", AMQPValue::LongLongInt(1 << 40)),
        ("f32", AMQPValue::Float(0.5)),
        ("f64", AMQPValue::Double(1.25)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("text", text("größe")),
        ("list", AMQPValue::FieldArray(list)),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("table", AMQPValue::FieldTable(table(&[("deep", AMQPValue::FieldTable(FieldTable::default()))]))),
        ("octets", AMQPValue::ByteArray(vec![0, 255].into())),
        ("void", AMQPValue::Void),
    ]);
    let sent = BasicProperties::default()
        .with_headers(headers)
        .with_content_type("text/plain".into())
        .with_content_encoding("identity".into())
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c".into())
        .with_reply_to("r".into())
        .with_expiration("60000".into())
        .with_message_id("m".into())
        .with_timestamp(1_700_000_000)
        .with_type("t".into())
        .with_user_id("guest".into())
        .with_app_id("a".into());
    s.publish("", queue.as_str(), b"x", sent.clone()).await;
    assert_eq!(s.get(&queue, true).await.delivery.properties, sent);
}

async fn bodies(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let mut consumer = s.consume(&s.channel, queue.as_str(), "", true, FieldTable::default()).await;
    for size in [5_000_000_usize, 0, 131_072 - 8, 131_072 - 7, 1] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        s.publish("", queue.as_str(), &body, BasicProperties::default()).await;
        assert!(next(&mut consumer).await.data == body, "{size} octets changed");
    }
}

async fn extensions(s: Session) {
    let dead = s.queue(FieldTable::default()).await;
    let letters = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text(dead.as_str()))];
    let with = |more: &[(&str, AMQPValue)]| table(&[&letters[..], more].concat());
    let expiring = s.queue(with(&[("x-message-ttl", AMQPValue::LongInt(30))])).await;
    s.publish("", expiring.as_str(), b"x", BasicProperties::default()).await;
    check_death(&s, &dead, "expired", expiring.as_str()).await;
    let bounded = s.queue(with(&[("x-max-length", AMQPValue::LongInt(1))])).await;
    for body in [b"x", b"y"] {
        s.publish("", bounded.as_str(), body, BasicProperties::default()).await;
    }
    check_death(&s, &dead, "maxlen", bounded.as_str()).await;
    let ordered = s.queue(table(&[("x-max-priority", AMQPValue::LongInt(5))])).await;
    for priority in [1, 5, 3] {
        let properties = BasicProperties::default().with_priority(priority);
        s.publish("", ordered.as_str(), priority.to_string().as_bytes(), properties).await;
    }
    s.await_ready(&ordered, 3).await;
    assert_eq!(s.bodies(&ordered, 3).await, ["5", "3", "1"]);
}

async fn check_death(s: &Session, dead: &lapin::types::ShortString, reason: &str, queue: &str) {
    let message = s.get(dead, true).await;
    let headers = message.delivery.properties.headers().clone().expect("headers");
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else {
        panic!("no x-death in {headers:?}");
    };
    let AMQPValue::FieldTable(death) = &deaths.as_slice()[0] else {
        panic!("{deaths:?}");
    };
    assert_eq!(death.inner().get("reason"), Some(&text(reason)));
    assert_eq!(death.inner().get("queue"), Some(&text(queue)));
    assert_eq!(death.inner().get("count"), Some(&AMQPValue::LongLongInt(1)));
}

async fn reply_to(s: Session) {
    let requests = s.queue(FieldTable::default()).await;
    let server = s.new_channel().await;
    let mut calls = s.consume(&server, requests.as_str(), "", true, FieldTable::default()).await;
    let mut replies = s.consume(&s.channel, "amq.rabbitmq.reply-to", "", true, FieldTable::default()).await;
    for number in 0..20 {
        let properties = BasicProperties::default()
            .with_reply_to("amq.rabbitmq.reply-to".into())
            .with_correlation_id(number.to_string().into());
        s.publish("", requests.as_str(), b"ping", properties).await;
        let call = next(&mut calls).await;
        let address = call.properties.reply_to().clone().expect("an address");
        let properties =
            BasicProperties::default().with_correlation_id(call.properties.correlation_id().clone().expect("an id"));
        let options = BasicPublishOptions::default();
        server.basic_publish("".into(), address, options, b"pong", properties).await.expect("a publish");
        let reply = next(&mut replies).await;
        assert_eq!(reply.data, b"pong");
        assert_eq!(reply.properties.correlation_id().as_ref().map(|id| id.as_str()), Some(number.to_string().as_str()));
    }
}

async fn many_channels(s: Session) {
    let queue = s.queue(FieldTable::default()).await;
    let mut channels = Vec::new();
    for _ in 0..200 {
        channels.push(s.new_channel().await);
    }
    for channel in &channels {
        let options = BasicPublishOptions::default();
        channel
            .basic_publish("".into(), queue.clone(), options, b"x", BasicProperties::default())
            .await
            .expect("a publish");
    }
    s.await_ready(&queue, 200).await;
    for channel in channels {
        channel.close(200, "done".into()).await.expect("closed");
    }
}

async fn a_hundred_thousand(s: Session) {
    const COUNT: usize = 100_000;
    const WINDOW: usize = 1_000;
    let queue = s.queue(FieldTable::default()).await;
    s.channel.confirm_select(ConfirmSelectOptions::default()).await.expect("select-ok");
    let receiver = s.new_channel().await;
    receiver.basic_qos(1000, BasicQosOptions::default()).await.expect("qos-ok");
    let mut consumer = s.consume(&receiver, queue.as_str(), "", false, FieldTable::default()).await;
    let (channel, target) = (s.channel.clone(), queue.clone());
    let publisher = tokio::spawn(async move {
        let mut pending = std::collections::VecDeque::new();
        for number in 0..COUNT {
            let options = BasicPublishOptions::default();
            let body = number.to_string();
            let confirm = channel
                .basic_publish("".into(), target.clone(), options, body.as_bytes(), BasicProperties::default())
                .await;
            pending.push_back(confirm.expect("a publish"));
            if pending.len() == WINDOW {
                assert!(pending.pop_front().expect("pending").await.expect("a confirm").is_ack());
            }
        }
        for confirm in pending {
            assert!(confirm.await.expect("a confirm").is_ack());
        }
    });
    for number in 0..COUNT {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.data, number.to_string().as_bytes());
        if (number + 1) % 200 == 0 {
            delivery.ack(BasicAckOptions { multiple: true }).await.expect("ack");
        }
    }
    within(publisher, "all confirms").await.expect("the publisher");
    s.await_ready(&queue, 0).await;
}
