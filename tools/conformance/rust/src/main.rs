//! The suite of lapin. Prints PLAN, PASS and FAIL lines for `tools/conformance/run`.

mod cases;

use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures_lite::StreamExt;
use lapin::{
    message::{BasicGetMessage, Delivery},
    options::{BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind, Result,
};

const WAIT_MAX: Duration = Duration::from_secs(20);
const CASE_MAX: Duration = Duration::from_secs(60);
const CASES_AT_ONCE: usize = 4;

static NUMBERS: AtomicUsize = AtomicUsize::new(1);

pub type CaseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
pub struct Case {
    pub name: &'static str,
    pub body: fn(Session) -> CaseFuture,
}

/// A connection and a channel to the broker under test.
#[derive(Clone)]
pub struct Session {
    pub address: String,
    pub connection: std::sync::Arc<Connection>,
    pub channel: Channel,
}

/// A name that no other case and no other run uses.
pub fn unique(kind: &str) -> ShortString {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let run = std::process::id();
    let time =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    format!("conf-rust-{run}-{time}-{kind}{number}").into()
}

pub fn url(address: &str, password: &str, vhost: &str, query: &str) -> String {
    format!("amqp://guest:{password}@{address}/{vhost}{query}")
}

pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

pub fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert((*name).into(), value.clone());
    }
    table
}

/// Waits for the future, for a while.
pub async fn within<T>(future: impl Future<Output = T>, what: &str) -> T {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {WAIT_MAX:?}"),
    }
}

pub async fn next(consumer: &mut Consumer) -> Delivery {
    within(consumer.next(), "a delivery").await.expect("the deliveries ended").expect("a delivery failed")
}

/// The attempt must be refused by the broker with this code and text.
pub fn refused<T: Debug>(result: Result<T>, code: u16, expected: &str) {
    let error = result.expect_err("it succeeded where a refusal is due");
    let ErrorKind::ProtocolError(refusal) = error.kind() else {
        panic!("{error:?} where {code} is due");
    };
    assert_eq!((refusal.get_id(), refusal.get_message().as_str()), (code, expected));
}

impl Session {
    pub async fn open(address: &str) -> Result<Session> {
        let url = url(address, "guest", "%2f", "");
        let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        Ok(Session { address: address.to_owned(), connection: connection.into(), channel })
    }

    pub async fn new_channel(&self) -> Channel {
        self.connection.create_channel().await.expect("a channel")
    }

    pub async fn queue(&self, arguments: FieldTable) -> ShortString {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(unique("q"), options, arguments).await;
        queue.expect("a queue").name().clone()
    }

    pub async fn exchange(&self, kind: ExchangeKind, arguments: FieldTable) -> ShortString {
        let name = unique("x");
        let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
        let declared = self.channel.exchange_declare(name.clone(), kind, options, arguments).await;
        declared.expect("an exchange");
        name
    }

    pub async fn publish(&self, exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
        let options = BasicPublishOptions::default();
        let published = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties).await;
        published.expect("a publish");
    }

    /// How many messages are ready.
    pub async fn ready(&self, queue: &ShortString) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let state = self.channel.queue_declare(queue.clone(), options, FieldTable::default()).await;
        state.expect("a passive declare").message_count()
    }

    pub async fn await_ready(&self, queue: &ShortString, count: u32) {
        let reached = async {
            while self.ready(queue).await != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(reached, &format!("{count} ready messages")).await;
    }

    pub async fn get(&self, queue: &ShortString, no_ack: bool) -> BasicGetMessage {
        let got = async {
            loop {
                let options = BasicGetOptions { no_ack };
                let answer = self.channel.basic_get(queue.clone(), options).await;
                if let Some(message) = answer.expect("a get") {
                    return message;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(got, "a message").await
    }

    /// Takes `count` messages, after which the queue must be empty.
    pub async fn bodies(&self, queue: &ShortString, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        while bodies.len() < count {
            let message = self.get(queue, true).await;
            bodies.push(String::from_utf8_lossy(&message.delivery.data).into_owned());
        }
        let options = BasicGetOptions { no_ack: true };
        let more = self.channel.basic_get(queue.clone(), options).await.expect("a get");
        assert!(more.is_none(), "one too many in {queue}");
        bodies
    }

    pub async fn consume(
        &self,
        channel: &Channel,
        queue: &str,
        tag: &str,
        no_ack: bool,
        arguments: FieldTable,
    ) -> Consumer {
        let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.into(), tag.into(), options, arguments).await;
        consumer.expect("a consumer")
    }
}

async fn run_one(address: String, case: &'static Case) -> bool {
    let begun = Instant::now();
    let body = tokio::spawn(async move {
        let session = within(Session::open(&address), "a connection").await.expect("a connection");
        let connection = session.connection.clone();
        (case.body)(session).await;
        let _ = connection.close(200, "done".into()).await;
    });
    let abort = body.abort_handle();
    let failure = match tokio::time::timeout(CASE_MAX, body).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(match error.try_into_panic() {
            Ok(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
                .unwrap_or_else(|| "a panic".to_owned()),
            Err(error) => error.to_string(),
        }),
        Err(_) => {
            abort.abort();
            Some("hangs".to_owned())
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    match &failure {
        None => println!("PASS {} {seconds:.3}", case.name),
        Some(why) => {
            let why = why.split_whitespace().collect::<Vec<_>>().join(" ");
            println!("FAIL {} {seconds:.3} | {why}", case.name);
        }
    }
    failure.is_none()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let (mut address, mut chosen) = (String::new(), String::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--broker" => address = arguments.next().unwrap_or_default(),
            "--case" => chosen = arguments.next().unwrap_or_default(),
            _ => {}
        }
    }
    std::panic::set_hook(Box::new(|_| {})); // reported by run_one
    let asked: Vec<&'static Case> = cases::ALL.iter().filter(|case| case.name.contains(&chosen)).collect();
    println!("PLAN {}", asked.len());
    let queue = std::sync::Arc::new(tokio::sync::Mutex::new(asked.into_iter()));
    let mut workers = Vec::new();
    for _ in 0..CASES_AT_ONCE {
        let (queue, address) = (queue.clone(), address.clone());
        workers.push(tokio::spawn(async move {
            let mut failures = 0;
            loop {
                let Some(case) = queue.lock().await.next() else { return failures };
                failures += usize::from(!run_one(address.clone(), case).await);
            }
        }));
    }
    let mut failures = 0;
    for worker in workers {
        failures += worker.await.unwrap_or(1);
    }
    std::process::exit(i32::from(failures > 0));
}
