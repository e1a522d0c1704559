//! Octets of AMQP 0-9-1, written and read by hand (section 4.2).

pub const METHOD: u8 = 1;
pub const HEADER: u8 = 2;
pub const BODY: u8 = 3;
pub const HEARTBEAT: u8 = 8;
pub const FRAME_END: u8 = 0xCE;
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// Class and method.
pub type MethodId = (u16, u16);

/// One frame with its header and end.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("tests send frames below 4 GiB");
    frame_declaring(kind, channel, size, payload)
}

/// A frame that says its payload is `size` octets long, whatever it is.
pub fn frame_declaring(kind: u8, channel: u16, size: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend(channel.to_be_bytes());
    out.extend(size.to_be_bytes());
    out.extend(payload);
    out.push(FRAME_END);
    out
}

/// Grows by chained calls: `Octets::method((50, 10)).u16(0).short("q")`.
#[derive(Clone, Default)]
pub struct Octets(pub Vec<u8>);

impl Octets {
    pub fn new() -> Octets {
        Octets::default()
    }
    pub fn method(id: MethodId) -> Octets {
        Octets::new().u16(id.0).u16(id.1)
    }
    pub fn u8(mut self, value: u8) -> Octets {
        self.0.push(value);
        self
    }
    pub fn u16(self, value: u16) -> Octets {
        self.raw(&value.to_be_bytes())
    }
    pub fn u32(self, value: u32) -> Octets {
        self.raw(&value.to_be_bytes())
    }
    pub fn u64(self, value: u64) -> Octets {
        self.raw(&value.to_be_bytes())
    }
    pub fn short(self, text: &str) -> Octets {
        let length = u8::try_from(text.len()).expect("short strings have at most 255 octets");
        self.u8(length).raw(text.as_bytes())
    }
    pub fn long(self, text: &[u8]) -> Octets {
        let length = u32::try_from(text.len()).expect("tests send strings below 4 GiB");
        self.u32(length).raw(text)
    }
    pub fn table(self, table: &Table) -> Octets {
        self.long(&table.0)
    }
    pub fn raw(mut self, octets: &[u8]) -> Octets {
        self.0.extend_from_slice(octets);
        self
    }
}

/// The entries of a field table, without its length.
#[derive(Clone, Debug, Default)]
pub struct Table(pub Vec<u8>);

impl Table {
    pub fn new() -> Table {
        Table::default()
    }
    /// An entry with any type octet and any value octets.
    pub fn entry(self, name: &str, kind: u8, value: &[u8]) -> Table {
        Table(Octets(self.0).short(name).u8(kind).raw(value).0)
    }
    pub fn text(self, name: &str, value: &str) -> Table {
        self.entry(name, b'S', &Octets::new().long(value.as_bytes()).0)
    }
    pub fn boolean(self, name: &str, value: bool) -> Table {
        self.entry(name, b't', &[u8::from(value)])
    }
    pub fn i32(self, name: &str, value: i32) -> Table {
        self.entry(name, b'I', &value.to_be_bytes())
    }
    pub fn table(self, name: &str, value: &Table) -> Table {
        self.entry(name, b'F', &Octets::new().table(value).0)
    }
}

/// Reads what [`Octets`] writes; runs off the end with a panic, which fails the test.
#[derive(Clone, Debug)]
pub struct Reading {
    octets: Vec<u8>,
    position: usize,
}

impl Reading {
    pub fn new(octets: &[u8]) -> Reading {
        Reading { octets: octets.to_vec(), position: 0 }
    }
    pub fn take(&mut self, count: usize) -> &[u8] {
        let from = self.position;
        self.position += count;
        assert!(self.position <= self.octets.len(), "the broker's arguments end too early: {:?}", self.octets);
        &self.octets[from..self.position]
    }
    pub fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two octets"))
    }
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().expect("four octets"))
    }
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().expect("eight octets"))
    }
    pub fn short(&mut self) -> String {
        let length = usize::from(self.u8());
        String::from_utf8(self.take(length).to_vec()).expect("the broker's short strings are UTF-8")
    }
    pub fn long(&mut self) -> Vec<u8> {
        let length = self.u32() as usize;
        self.take(length).to_vec()
    }
    pub fn rest(&mut self) -> Vec<u8> {
        let rest = self.octets[self.position..].to_vec();
        self.position = self.octets.len();
        rest
    }
    pub fn is_at_end(&self) -> bool {
        self.position == self.octets.len()
    }
}
