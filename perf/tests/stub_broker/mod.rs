//! A broker that is just enough for one queue, and does on purpose what no broker should.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lepus::protocol::content::put_content;
use lepus::protocol::field_table::TableRef;
use lepus::protocol::frame::{FrameKind, take_frame};
use lepus::protocol::method::{Method, basic, channel, confirm, connection, queue, tx};
use lepus::protocol::properties::content_header;

const FRAME_OCTETS_MAX: usize = 131_072;
/// The pseudo queue of direct reply-to.
const REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";

/// What it does to the messages that it gets, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test file has its own copy of this module")]
pub enum Fault {
    /// All is right.
    None,
    /// Before it takes this one it does nothing for so long.
    Stall(u64, Duration),
    /// Before it takes this one it tells publishers to stop, for so long.
    Block(u64, Duration),
    /// It forgets this one.
    Drop(u64),
    /// It delivers this one twice.
    Double(u64),
    /// It delivers this one after the next.
    Swap(u64),
    /// It changes an octet of this one's body: the last.
    Corrupt(u64),
    /// It delivers this one twice, and says so.
    Redeliver(u64),
    /// It takes this one and never confirms it.
    ForgetConfirm(u64),
    /// It never answers this commit.
    ForgetCommit(u64),
    /// It never sends this reply on.
    DropReply(u64),
    /// It sends this reply on twice.
    DoubleReply(u64),
    /// It refuses this one.
    Nack(u64),
    /// It refuses all before this one.
    NackBefore(u64),
    /// It refuses this one and delivers it all the same.
    NackTaken(u64),
    /// It does so with the first, and forgets the second.
    NackTakenDrop(u64, u64),
    /// It returns this one.
    Return(u64),
    /// It ends the connection instead of taking this one.
    Close(u64),
    /// The same, for the first connection alone that comes so far.
    CloseOne(u64),
    /// It lets nobody in.
    RefuseLogin,
}

/// What a message's body is sent with.
#[derive(Clone)]
struct Message {
    properties: Vec<u8>,
    body: Vec<u8>,
}

/// Where deliveries go: to one after the other.
#[derive(Default)]
struct Consumers {
    all: Vec<Consumer>,
    next: usize,
    /// Who has asked for replies.
    replies: Option<Consumer>,
    reply_count: u64,
    /// A message that waits for the next to go before it.
    swapped: Option<Message>,
    /// A connection was ended.
    has_closed: bool,
}

struct Consumer {
    stream: TcpStream,
    channel: u16,
    consumer_tag: Vec<u8>,
    delivery_tag: u64,
}

/// Starts one, on any port; it runs as long as the process. Returns its URI.
pub fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let uri = format!("amqp://{}", listener.local_addr().expect("it is bound"));
    let consumers = Arc::new(Mutex::new(Consumers::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let consumers = Arc::clone(&consumers);
            let connection =
                Connection { stream, consumers, fault, published: 0, commits: 0, is_reply: false, publish: None };
            // A client that has gone, or one that was sent away, ends its thread.
            thread::spawn(move || connection.serve());
        }
    });
    uri
}

struct Connection {
    stream: TcpStream,
    consumers: Arc<Mutex<Consumers>>,
    fault: Fault,
    published: u64,
    commits: u64,
    /// The publish that is being received is a reply.
    is_reply: bool,
    /// Octets of its body, and what is there of it.
    publish: Option<(u64, Message)>,
}

impl Connection {
    fn serve(mut self) -> Option<()> {
        let mut header = [0; 8];
        self.stream.read_exact(&mut header).ok()?;
        let start = connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: TableRef::EMPTY,
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        self.answer(0, &Method::ConnectionStart(start))?;
        let (mut input, mut part) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            while let Some((frame, used)) = take_frame(&input, FRAME_OCTETS_MAX).expect("well-formed") {
                let (kind, channel, payload) = (frame.kind, frame.channel, frame.payload.to_vec());
                input.drain(..used);
                match kind {
                    FrameKind::Method => self.handle(channel, &Method::decode(&payload).expect("well-formed"))?,
                    FrameKind::Header => {
                        let header = content_header(&payload).expect("well-formed");
                        let properties = header.properties.to_vec();
                        self.publish = Some((header.body_size, Message { properties, body: Vec::new() }));
                    }
                    FrameKind::Body => {
                        let (octets, message) = self.publish.as_mut().expect("a header came before");
                        message.body.extend_from_slice(&payload);
                        if message.body.len() as u64 == *octets {
                            let (_, message) = self.publish.take().expect("it is there");
                            if self.is_reply {
                                self.handle_reply(&message);
                            } else {
                                self.handle_message(channel, message)?;
                            }
                        }
                    }
                    FrameKind::Heartbeat => {}
                }
            }
            match self.stream.read(&mut part).ok()? {
                0 => return None,
                octets => input.extend_from_slice(&part[..octets]),
            }
        }
    }

    fn answer(&mut self, channel: u16, method: &Method<'_>) -> Option<()> {
        let mut octets = Vec::new();
        method.put(&mut octets, channel);
        self.stream.write_all(&octets).ok()
    }

    fn handle(&mut self, channel: u16, method: &Method<'_>) -> Option<()> {
        let answer = match method {
            Method::ConnectionStartOk(_) if self.fault == Fault::RefuseLogin => {
                let (reply_code, reply_text) = (403, &b"ACCESS_REFUSED - no"[..]);
                Method::ConnectionClose(connection::Close { reply_code, reply_text, class_id: 0, method_id: 0 })
            }
            Method::ConnectionStartOk(_) => {
                let frame_max = u32::try_from(FRAME_OCTETS_MAX).expect("small");
                Method::ConnectionTune(connection::Tune { channel_max: 100, frame_max, heartbeat: 0 })
            }
            Method::ConnectionOpen(_) => Method::ConnectionOpenOk(connection::OpenOk {}),
            Method::ConnectionClose(_) => Method::ConnectionCloseOk(connection::CloseOk {}),
            Method::ChannelOpen(_) => Method::ChannelOpenOk(channel::OpenOk {}),
            Method::ConfirmSelect(_) => Method::ConfirmSelectOk(confirm::SelectOk {}),
            Method::BasicQos(_) => Method::BasicQosOk(basic::QosOk {}),
            Method::QueueDeclare(declare) => {
                Method::QueueDeclareOk(queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 0 })
            }
            Method::QueueDelete(_) => Method::QueueDeleteOk(queue::DeleteOk { message_count: 0 }),
            Method::BasicConsume(consume) => {
                let stream = self.stream.try_clone().expect("a descriptor is free");
                let consumer_tag = consume.consumer_tag.to_vec();
                let consumer = Consumer { stream, channel, consumer_tag, delivery_tag: 0 };
                let mut consumers = self.consumers.lock().expect("nobody panics");
                if consume.queue == REPLY_TO {
                    consumers.replies = Some(consumer);
                } else {
                    consumers.all.push(consumer);
                }
                Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: consume.consumer_tag })
            }
            Method::TxSelect(_) => Method::TxSelectOk(tx::SelectOk {}),
            Method::TxCommit(_) => {
                self.commits += 1;
                if self.fault == Fault::ForgetCommit(self.commits - 1) {
                    return Some(());
                }
                Method::TxCommitOk(tx::CommitOk {})
            }
            Method::BasicPublish(publish) => {
                self.is_reply = publish.routing_key == REPLY_TO;
                return Some(());
            }
            _ => return Some(()),
        };
        self.answer(channel, &answer)
    }

    fn handle_reply(&mut self, message: &Message) {
        let mut consumers = self.consumers.lock().expect("nobody panics");
        let number = consumers.reply_count;
        consumers.reply_count += 1;
        let times = match self.fault {
            Fault::DropReply(at) if at == number => 0,
            Fault::DoubleReply(at) if at == number => 2,
            _ => 1,
        };
        for _ in 0..times {
            consumers.replies.as_mut().expect("somebody has asked").deliver(message, false);
        }
    }

    fn close(&mut self) -> Option<()> {
        let (reply_code, reply_text) = (320, &b"CONNECTION_FORCED - by the test"[..]);
        self.answer(
            0,
            &Method::ConnectionClose(connection::Close { reply_code, reply_text, class_id: 0, method_id: 0 }),
        )
    }

    fn handle_message(&mut self, channel: u16, mut message: Message) -> Option<()> {
        let number = self.published;
        self.published += 1;
        let consumers = Arc::clone(&self.consumers);
        let mut consumers = consumers.lock().expect("nobody panics");
        let nack = Method::BasicNack(basic::Nack { delivery_tag: number + 1, multiple: false, requeue: false });
        let confirmed = Method::BasicAck(basic::Ack { delivery_tag: number + 1, multiple: false });
        match self.fault {
            Fault::Stall(at, time) if at == number => thread::sleep(time),
            Fault::Block(at, time) if at == number => {
                self.answer(0, &Method::ConnectionBlocked(connection::Blocked { reason: b"low on patience" }))?;
                thread::sleep(time);
                self.answer(0, &Method::ConnectionUnblocked(connection::Unblocked {}))?;
            }
            Fault::Drop(at) if at == number => return self.answer(channel, &confirmed),
            Fault::Double(at) if at == number => consumers.deliver(&message, false),
            Fault::Swap(at) if at == number => {
                consumers.swapped = Some(message);
                return self.answer(channel, &confirmed);
            }
            Fault::Corrupt(at) if at == number => *message.body.last_mut().expect("it has a body") ^= 1,
            Fault::Nack(at) if at == number => return self.answer(channel, &nack),
            Fault::NackTaken(at) | Fault::NackTakenDrop(at, _) if at == number => {
                consumers.deliver(&message, false);
                return self.answer(channel, &nack);
            }
            Fault::NackTakenDrop(_, at) if at == number => return self.answer(channel, &confirmed),
            Fault::Return(at) if at == number => {
                let (reply_code, reply_text) = (312, &b"NO_ROUTE"[..]);
                let (exchange, routing_key) = (&b""[..], &b"lepus-perf"[..]);
                self.answer(
                    channel,
                    &Method::BasicReturn(basic::Return { reply_code, reply_text, exchange, routing_key }),
                )?;
                let mut octets = Vec::new();
                put_content(&mut octets, channel, &message.properties, &message.body, FRAME_OCTETS_MAX);
                self.stream.write_all(&octets).ok()?;
                return self.answer(channel, &confirmed);
            }
            Fault::NackBefore(at) if number < at => return self.answer(channel, &nack),
            Fault::Close(at) if at == number => return self.close(),
            Fault::CloseOne(at) if at == number && !std::mem::replace(&mut consumers.has_closed, true) => {
                return self.close();
            }
            _ => {}
        }
        consumers.deliver(&message, false);
        if self.fault == Fault::Redeliver(number) {
            consumers.deliver(&message, true);
        }
        if let Some(swapped) = consumers.swapped.take() {
            consumers.deliver(&swapped, false);
        }
        drop(consumers);
        if self.fault == Fault::ForgetConfirm(number) {
            return Some(());
        }
        self.answer(channel, &confirmed)
    }
}

impl Consumers {
    fn deliver(&mut self, message: &Message, redelivered: bool) {
        let count = self.all.len();
        let Some(consumer) = self.all.get_mut(self.next) else { return };
        consumer.deliver(message, redelivered);
        self.next = (self.next + 1) % count;
    }
}

impl Consumer {
    fn deliver(&mut self, message: &Message, redelivered: bool) {
        self.delivery_tag += 1;
        let deliver = basic::Deliver {
            consumer_tag: &self.consumer_tag,
            delivery_tag: self.delivery_tag,
            redelivered,
            exchange: b"",
            routing_key: b"lepus-perf",
        };
        let mut octets = Vec::new();
        Method::from(deliver).put(&mut octets, self.channel);
        put_content(&mut octets, self.channel, &message.properties, &message.body, FRAME_OCTETS_MAX);
        // A consumer that has gone needs nothing.
        let _ = self.stream.write_all(&octets);
    }
}
