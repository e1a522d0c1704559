//! Frames out of arbitrary octets: plausible sessions and implausible ones, with what is wrong in them wrong on purpose.

use lepus::protocol::{
    content::put_content,
    field_table::{FieldTable, FieldValue, TableRef},
    frame::{FrameKind, put_frame},
    method::{Method, basic, channel, confirm, connection, exchange, queue, tx},
    properties::Properties,
};

const QUEUES: [&[u8]; 9] =
    [b"", b"q0", b"q1", b"q2", b"q3", b"amq.rabbitmq.reply-to", b"amq.gen-x", b"q\r\n0", b"\xff\xfe"];
const EXCHANGES: [&[u8]; 12] = [
    b"",
    b"e0",
    b"e1",
    b"e2",
    b"amq.direct",
    b"amq.fanout",
    b"amq.topic",
    b"amq.headers",
    b"amq.match",
    b"none",
    b"\xff",
    b"amq.new",
];
const KINDS: [&[u8]; 6] = [b"direct", b"fanout", b"topic", b"headers", b"x-none", b""];
const KEYS: [&[u8]; 11] =
    [b"q0", b"q1", b"q2", b"a.b", b"a.*", b"#", b"*.b.#", b"", b"a..b", b"\xff", b"amq.rabbitmq.reply-to.x"];
const TAGS: [&[u8]; 4] = [b"", b"t0", b"t1", b"\xff"];
const ARGUMENTS: [&str; 14] = [
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-single-active-consumer",
    "x-priority",
    "alternate-exchange",
    "x-match",
    "x-queue-type",
    "a",
];
const HEADERS: [&str; 6] = ["CC", "BCC", "x-death", "a", "b", "x-first-death-queue"];
const TEXTS: [&str; 14] = [
    "",
    "e0",
    "e1",
    "amq.fanout",
    "q0",
    "reject-publish",
    "drop-head",
    "reject-publish-dlx",
    "any",
    "all",
    "a",
    "classic",
    "quorum",
    "all-with-x",
];
const BODY_OCTETS: [usize; 10] = [0, 1, 16, 16, 100, 1024, 4088, 4089, 9000, 20_000];
/// The filler of bodies.
static FILL: [u8; 20_000] = [b'x'; 20_000];

/// Octets that decisions are read from; zeros once they are over.
pub struct Tape<'a> {
    octets: &'a [u8],
}

/// What a client knows of its connection.
#[derive(Default)]
pub struct View {
    /// Which channels it has open.
    pub open: [bool; 4],
    /// The last delivery tag of each channel.
    pub tags: [u64; 4],
    /// The frame-max, in octets.
    pub frame_octets_max: usize,
}

impl<'a> Tape<'a> {
    pub fn new(octets: &'a [u8]) -> Self {
        Self { octets }
    }

    pub fn is_over(&self) -> bool {
        self.octets.is_empty()
    }

    pub fn octet(&mut self) -> u8 {
        match self.octets.split_first() {
            Some((first, rest)) => {
                self.octets = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.octet()) % bound
    }

    /// Mostly false.
    pub fn once_in(&mut self, times: u8) -> bool {
        self.octet() % times == times - 1
    }

    pub fn flag(&mut self) -> bool {
        self.octet() & 1 == 1
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Up to so many octets as they are.
    pub fn run(&mut self, most: usize) -> &'a [u8] {
        let count = self.below(most + 1).min(self.octets.len());
        let (run, rest) = self.octets.split_at(count);
        self.octets = rest;
        run
    }

    /// The first few are likelier than the rest.
    fn name(&mut self, all: &'static [&'static [u8]]) -> &'static [u8] {
        let (least, most) = if self.once_in(16) { (0, all.len()) } else { (1, 4) };
        all[least + self.below(most - least)]
    }

    fn value(&mut self) -> FieldValue {
        match self.below(12) {
            0..=2 => FieldValue::LongString(self.pick(&TEXTS).into()),
            3..=5 => FieldValue::I32(self.pick(&[0, 1, 2, 5, 10, 100, 1000, -1, i32::MAX])),
            6 => FieldValue::U8(self.octet()),
            7 => FieldValue::Bool(self.flag()),
            8 => FieldValue::Array(vec![
                FieldValue::LongString(self.pick(&KEYS).to_vec()),
                FieldValue::LongString(self.pick(&QUEUES).to_vec()),
            ]),
            9 => FieldValue::I64(i64::from(self.octet()) << self.below(56)),
            10 => {
                let mut table = FieldTable::new();
                table.insert("count", FieldValue::I64(1));
                table.insert("queue", FieldValue::LongString(self.pick(&QUEUES).to_vec()));
                table.insert("reason", FieldValue::LongString(b"rejected".to_vec()));
                FieldValue::Array(vec![FieldValue::Table(table)])
            }
            _ => self.pick(&[FieldValue::Void, FieldValue::F64(0.5), FieldValue::Timestamp(1)].each_ref()).clone(),
        }
    }

    /// A value that mostly suits the argument.
    fn value_of(&mut self, name: &str) -> FieldValue {
        if self.once_in(12) {
            return self.value();
        }
        match name {
            "x-overflow" => FieldValue::LongString(self.pick(&TEXTS[5..8]).into()),
            "x-match" => FieldValue::LongString(self.pick(&TEXTS[8..10]).into()),
            "x-queue-type" => FieldValue::LongString(b"classic".to_vec()),
            "x-dead-letter-exchange" | "alternate-exchange" => FieldValue::LongString(self.pick(&TEXTS[..4]).into()),
            "x-dead-letter-routing-key" => FieldValue::LongString(self.pick(&KEYS).to_vec()),
            "x-single-active-consumer" => FieldValue::Bool(self.flag()),
            "x-max-priority" => FieldValue::U8(self.pick(&[1, 2, 10, 255])),
            "x-expires" => FieldValue::I32(self.pick(&[1, 100, 100_000])),
            name if name.starts_with("x-m") || name == "x-priority" => {
                FieldValue::I32(self.pick(&[0, 0, 1, 2, 5, 10, 100, 1000, 100_000]))
            }
            _ => self.value(),
        }
    }

    fn fields(&mut self, names: &[&str]) -> Vec<u8> {
        let mut table = FieldTable::new();
        if self.once_in(4) {
            for _ in 0..=self.below(3) {
                let name = self.pick(names);
                let value = self.value_of(name);
                table.insert(name, value);
            }
        }
        table.to_octets()
    }

    fn properties(&mut self) -> Vec<u8> {
        let mut raw = Vec::new();
        if !self.once_in(3) {
            Properties::default().encode(&mut raw);
            return raw;
        }
        let headers = self.fields(&HEADERS);
        let properties = Properties {
            headers: self.flag().then(|| TableRef::new(&headers).expect("an own table is well-formed")),
            delivery_mode: self.flag().then(|| self.pick(&[1, 2, 3])),
            priority: self.flag().then(|| self.octet()),
            expiration: self.once_in(3).then(|| self.pick(&[&b"0"[..], b"1", b"1000", b"-1", b"", b"99999999999"])),
            reply_to: self.once_in(4).then_some(b"amq.rabbitmq.reply-to"),
            user_id: self.once_in(5).then(|| self.pick(&[&b"guest"[..], b"other"])),
            ..Properties::default()
        };
        properties.encode(&mut raw);
        raw
    }

    /// What a session may start with: queues and exchanges under the names that are used most, bound, one consumed from.
    pub fn beginning(&mut self) -> Vec<u8> {
        let mut octets = framed(1, &channel::Open {}.into());
        for at in 1..4 {
            let arguments = self.fields(&ARGUMENTS[..9]);
            let arguments = TableRef::new(&arguments).unwrap_or_default();
            let (queue, durable) = (QUEUES[at], self.flag());
            octets.extend(framed(1, &queue::Declare { queue, durable, arguments, ..Default::default() }.into()));
            let (exchange, kind) = (EXCHANGES[at], self.pick(&KINDS[..4]));
            octets.extend(framed(1, &exchange::Declare { exchange, kind, ..Default::default() }.into()));
            let routing_key = self.pick(&KEYS[..7]);
            let arguments = TableRef::EMPTY;
            octets.extend(framed(1, &queue::Bind { queue, exchange, routing_key, no_wait: true, arguments }.into()));
        }
        let (queue, no_ack) = (QUEUES[1 + self.below(3)], self.flag());
        octets.extend(framed(1, &basic::Consume { queue, no_ack, ..Default::default() }.into()));
        octets
    }

    /// The next frames of a session.
    pub fn frames(&mut self, view: &View) -> Vec<Vec<u8>> {
        let number = [1, 1, 1, 2, 2, 3][self.below(6)];
        let mut frames = Vec::new();
        if !view.open[usize::from(number)] && !self.once_in(100) {
            frames.push(framed(number, &channel::Open {}.into()));
        }
        match self.octet() % 64 {
            60..=63 if !self.once_in(4) => self.publish(number, view, &mut frames),
            0..=23 => self.publish(number, view, &mut frames),
            24..=55 => {
                let arguments = self.fields(&ARGUMENTS);
                let method = self.usual(view, number, TableRef::new(&arguments).unwrap_or_default());
                frames.push(framed(number, &method));
            }
            56 => frames.push(framed(number, &channel::Close::default().into())),
            57..=58 => self.publish(number, view, &mut frames),
            59 => frames.push(vec![8, 0, 0, 0, 0, 0, 0, 0xCE]),
            60 => {
                let number = if self.flag() { 0 } else { number };
                let method = self.unusual();
                frames.push(framed(number, &method));
            }
            61 => self.unknown(number, &mut frames),
            62 => frames.push(self.run(32).to_vec()),
            _ => {
                let method: Method<'_> = match self.below(4) {
                    0 => connection::Close { reply_code: 200, ..Default::default() }.into(),
                    1 => channel::CloseOk {}.into(),
                    2 => connection::UpdateSecret { new_secret: b"s", reason: b"r" }.into(),
                    _ => channel::Flow { active: self.flag() }.into(),
                };
                let number = if method.ids().0 == 10 { 0 } else { number };
                frames.push(framed(number, &method));
            }
        }
        self.damage(&mut frames);
        frames
    }

    fn publish(&mut self, number: u16, view: &View, frames: &mut Vec<Vec<u8>>) {
        let publish = basic::Publish {
            exchange: if self.flag() { self.name(&EXCHANGES) } else { b"" },
            routing_key: if self.flag() { self.name(&KEYS) } else { KEYS[0] },
            mandatory: self.once_in(4),
            immediate: self.once_in(100),
        };
        frames.push(framed(number, &publish.into()));
        let (properties, body) = (self.properties(), self.pick(&BODY_OCTETS));
        let mut content = Vec::new();
        let frame_octets_max = if self.once_in(8) { 100 } else { view.frame_octets_max };
        put_content(&mut content, number, &properties, &FILL[..body], frame_octets_max);
        if self.once_in(32) {
            // A body size that is not kept to.
            let at = lepus::protocol::frame::FRAME_HEADER_OCTETS + 4 + self.below(8);
            content[at] ^= 1 << self.below(8);
        }
        frames.push(content);
    }

    /// What clients send.
    fn usual<'t>(&mut self, view: &View, number: u16, arguments: TableRef<'t>) -> Method<'t> {
        let (queue, exchange, routing_key) = (self.name(&QUEUES), self.name(&EXCHANGES), self.name(&KEYS));
        let no_wait = self.once_in(8);
        let last = view.tags[usize::from(number)];
        let delivery_tag =
            if self.once_in(8) { u64::from(self.octet()) } else { last.saturating_sub(self.below(4) as u64) };
        match self.octet() % 40 {
            0..=6 => {
                let (passive, durable, exclusive) = (self.once_in(8), self.once_in(4), self.once_in(4));
                let auto_delete = self.once_in(4);
                queue::Declare { queue, passive, durable, exclusive, auto_delete, no_wait, arguments }.into()
            }
            7..=9 => exchange::Declare {
                exchange,
                kind: self.name(&KINDS),
                passive: self.once_in(8),
                durable: self.once_in(4),
                auto_delete: self.once_in(4),
                internal: self.once_in(8),
                no_wait,
                arguments,
            }
            .into(),
            10..=13 => queue::Bind { queue, exchange, routing_key, no_wait, arguments }.into(),
            14 => queue::Unbind { queue, exchange, routing_key, arguments }.into(),
            15..=16 => {
                let destination = self.name(&EXCHANGES);
                exchange::Bind { destination, source: exchange, routing_key, no_wait, arguments }.into()
            }
            17 => {
                let destination = self.name(&EXCHANGES);
                exchange::Unbind { destination, source: exchange, routing_key, no_wait, arguments }.into()
            }
            18 => queue::Delete { queue, if_unused: self.flag(), if_empty: self.flag(), no_wait }.into(),
            19 => exchange::Delete { exchange, if_unused: self.flag(), no_wait }.into(),
            20 => queue::Purge { queue, no_wait }.into(),
            21..=25 => basic::Consume {
                queue,
                consumer_tag: self.name(&TAGS),
                no_local: self.flag(),
                no_ack: self.flag(),
                exclusive: self.once_in(8),
                no_wait,
                arguments,
            }
            .into(),
            26 => basic::Cancel { consumer_tag: self.name(&TAGS), no_wait }.into(),
            27..=28 => basic::Get { queue, no_ack: self.flag() }.into(),
            29..=33 if last == 0 && !self.once_in(16) => basic::Get { queue, no_ack: false }.into(),
            29..=30 => basic::Ack { delivery_tag, multiple: self.flag() }.into(),
            31..=32 => basic::Nack { delivery_tag, multiple: self.flag(), requeue: self.flag() }.into(),
            33 => basic::Reject { delivery_tag, requeue: self.flag() }.into(),
            34 if self.flag() => basic::Recover { requeue: !self.once_in(16) }.into(),
            34 => basic::RecoverAsync { requeue: !self.once_in(16) }.into(),
            35 => {
                let prefetch_size = u32::from(self.once_in(32));
                basic::Qos { prefetch_size, prefetch_count: self.pick(&[0, 1, 2, 10]), global: self.flag() }.into()
            }
            36 if number == 2 || self.once_in(8) => confirm::Select { no_wait }.into(),
            36 => basic::Get { queue, no_ack: true }.into(),
            37..=39 if number != 3 && !self.once_in(32) => {
                basic::Consume { queue, no_ack: self.flag(), ..Default::default() }.into()
            }
            37 => tx::Select {}.into(),
            38 => tx::Commit {}.into(),
            _ => tx::Rollback {}.into(),
        }
    }

    /// What the broker sends, and what comes only once.
    fn unusual(&mut self) -> Method<'static> {
        match self.below(17) {
            0 => connection::Start::default().into(),
            1 => connection::StartOk::default().into(),
            2 => connection::SecureOk::default().into(),
            3 => connection::TuneOk::default().into(),
            4 => connection::Open::default().into(),
            5 => connection::CloseOk {}.into(),
            6 => connection::Blocked::default().into(),
            7 => channel::Open {}.into(),
            8 => channel::FlowOk { active: true }.into(),
            9 => queue::DeclareOk::default().into(),
            10 => basic::CancelOk::default().into(),
            11 => basic::Deliver::default().into(),
            12 => basic::GetOk::default().into(),
            13 => basic::Return::default().into(),
            14 => basic::ConsumeOk::default().into(),
            15 => confirm::SelectOk {}.into(),
            _ => tx::CommitOk {}.into(),
        }
    }

    /// Any kind of frame with anything in it.
    fn unknown(&mut self, number: u16, frames: &mut Vec<Vec<u8>>) {
        let kind = self.pick(&[FrameKind::Method, FrameKind::Header, FrameKind::Body, FrameKind::Heartbeat]);
        let mut payload = Vec::new();
        if kind == FrameKind::Method {
            payload.extend_from_slice(&[0, self.pick(&[10, 20, 40, 50, 60, 85, 90, 30]), 0, self.octet()]);
        }
        payload.extend_from_slice(self.run(32));
        let mut frame = Vec::new();
        put_frame(&mut frame, kind, number, &payload);
        frames.push(frame);
    }

    /// Now and then, something happens on the way.
    fn damage(&mut self, frames: &mut Vec<Vec<u8>>) {
        if !self.once_in(80) {
            return;
        }
        let at = self.below(frames.len());
        let octets = frames[at].len();
        match self.below(5) {
            0 if octets > 0 => frames[at][(self.below(256) * 7) % octets] ^= 1 << self.below(8),
            1 => frames[at].truncate((self.below(256) * 7) % (octets + 1)),
            2 => frames.push(frames[at].clone()),
            3 => frames.reverse(),
            _ => drop(frames.remove(at)),
        }
    }
}

/// A method as a frame.
pub fn framed(channel: u16, method: &Method<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    method.put(&mut frame, channel);
    frame
}
