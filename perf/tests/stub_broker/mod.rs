//! A broker that is just enough for one queue, and does on purpose what no broker should.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use lepus::protocol::content::put_content;
use lepus::protocol::field_table::TableRef;
use lepus::protocol::frame::{FrameKind, take_frame};
use lepus::protocol::method::{Method, basic, channel, confirm, connection, queue};
use lepus::protocol::properties::content_header;

const FRAME_OCTETS_MAX: usize = 131_072;

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
    /// It refuses this one.
    Nack(u64),
    /// It ends the connection instead of taking this one.
    Close(u64),
    /// It lets nobody in.
    RefuseLogin,
}

/// Where deliveries go.
#[derive(Default)]
struct Consumer {
    to: Option<(TcpStream, u16, Vec<u8>)>,
    delivery_tag: u64,
    /// A message that waits for the next to go before it.
    swapped: Option<Vec<u8>>,
}

/// Starts one, on any port; it runs as long as the process. Returns its URI.
pub fn start(fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let uri = format!("amqp://{}", listener.local_addr().expect("it is bound"));
    let consumer = Arc::new(Mutex::new(Consumer::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let consumer = Arc::clone(&consumer);
            // A client that has gone, or one that was sent away, ends its thread.
            thread::spawn(move || Connection { stream, consumer, fault, published: 0, publish: None }.serve());
        }
    });
    uri
}

struct Connection {
    stream: TcpStream,
    consumer: Arc<Mutex<Consumer>>,
    fault: Fault,
    published: u64,
    /// A publish that is being received: octets of its body, and what is there of it.
    publish: Option<(u64, Vec<u8>)>,
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
                        self.publish = Some((header.body_size, Vec::new()));
                    }
                    FrameKind::Body => {
                        let (octets, body) = self.publish.as_mut().expect("a header came before");
                        body.extend_from_slice(&payload);
                        if body.len() as u64 == *octets {
                            let (_, body) = self.publish.take().expect("it is there");
                            self.handle_message(channel, body)?;
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
                self.consumer.lock().expect("nobody panics").to =
                    Some((stream, channel, consume.consumer_tag.to_vec()));
                Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: consume.consumer_tag })
            }
            _ => return Some(()),
        };
        self.answer(channel, &answer)
    }

    fn handle_message(&mut self, channel: u16, mut body: Vec<u8>) -> Option<()> {
        let number = self.published;
        self.published += 1;
        let consumer = Arc::clone(&self.consumer);
        let mut consumer = consumer.lock().expect("nobody panics");
        let confirmed = Method::BasicAck(basic::Ack { delivery_tag: number + 1, multiple: false });
        match self.fault {
            Fault::Stall(at, time) if at == number => thread::sleep(time),
            Fault::Block(at, time) if at == number => {
                self.answer(0, &Method::ConnectionBlocked(connection::Blocked { reason: b"low on patience" }))?;
                thread::sleep(time);
                self.answer(0, &Method::ConnectionUnblocked(connection::Unblocked {}))?;
            }
            Fault::Drop(at) if at == number => return self.answer(channel, &confirmed),
            Fault::Double(at) if at == number => consumer.deliver(&body),
            Fault::Swap(at) if at == number => {
                consumer.swapped = Some(body);
                return self.answer(channel, &confirmed);
            }
            Fault::Corrupt(at) if at == number => *body.last_mut().expect("it has a body") ^= 1,
            Fault::Nack(at) if at == number => {
                let nack = basic::Nack { delivery_tag: number + 1, multiple: false, requeue: false };
                return self.answer(channel, &Method::BasicNack(nack));
            }
            Fault::Close(at) if at == number => {
                let (reply_code, reply_text) = (320, &b"CONNECTION_FORCED - by the test"[..]);
                let close = connection::Close { reply_code, reply_text, class_id: 0, method_id: 0 };
                return self.answer(0, &Method::ConnectionClose(close));
            }
            _ => {}
        }
        consumer.deliver(&body);
        if let Some(swapped) = consumer.swapped.take() {
            consumer.deliver(&swapped);
        }
        drop(consumer);
        self.answer(channel, &confirmed)
    }
}

impl Consumer {
    fn deliver(&mut self, body: &[u8]) {
        let Some((stream, channel, consumer_tag)) = &mut self.to else { return };
        self.delivery_tag += 1;
        let deliver = basic::Deliver {
            consumer_tag,
            delivery_tag: self.delivery_tag,
            redelivered: false,
            exchange: b"",
            routing_key: b"lepus-perf",
        };
        let mut octets = Vec::new();
        Method::from(deliver).put(&mut octets, *channel);
        put_content(&mut octets, *channel, &[0, 0], body, FRAME_OCTETS_MAX);
        // A consumer that has gone needs nothing.
        let _ = stream.write_all(&octets);
    }
}
