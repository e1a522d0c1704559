//! What stands around a shard: the same duties as the real event loop and its sockets, without an executor. What a shard wants
//! to go on with of itself (`Shard::wants_turn`) has its turn when something comes in or the clock ticks.

use crate::{
    context::Context,
    control::Control,
    disk::Disk,
    ring::Rings,
    wire::{Wire, activity},
};
use lepus::{
    definitions::ShardIndex,
    shard::{PersistenceStart, Shard},
};

/// What turns the simulator's time into milliseconds since 1970.
pub const UNIX_OFFSET_MILLIS: u64 = 1_700_000_000_000;
const ROUNDS_MAX: usize = 8;
/// Slices in one vectored write.
const SLICES_MAX: usize = 64;

/// What a shard's turn needs of the rest of the world.
pub struct Around<'a> {
    pub context: &'a mut Context,
    pub rings: &'a mut Rings,
    pub control: &'a mut Control,
    pub wires: &'a mut Vec<Wire>,
    pub disk: &'a mut Disk,
    pub events: &'a mut Vec<Event>,
}

/// What the clients' books have to know.
pub enum Event {
    /// The broker has handled so many octets of this wire, all in all.
    Used(usize, u64),
    /// The broker has given the wire up.
    Disconnected(usize),
}

struct Socket {
    wire: usize,
    /// What is left of the input.
    input: Vec<u8>,
    is_resumed: bool,
    is_stuck: bool,
    is_over: bool,
}

pub struct Driver {
    pub shard: Shard,
    index: usize,
    shard_count: usize,
    sockets: Vec<Option<Socket>>,
    version: u64,
    memory_is_short: bool,
    disk_is_short: bool,
    /// When the broker's clock began, in milliseconds.
    began_at: u64,
    ticks: u64,
    ticked_at: u64,
    /// Its thread does not run before this step.
    pub stalled_until: u64,
}

impl Driver {
    /// `began_at` is when the broker's clock began, in milliseconds.
    pub fn new(
        index: usize,
        shard_count: usize,
        control: &Control,
        began_at: u64,
        persistence: Option<PersistenceStart>,
    ) -> Self {
        let number = ShardIndex(u16::try_from(index).expect("few"));
        let shard = Shard::new(number, shard_count, control.published.clone(), UNIX_OFFSET_MILLIS + began_at, 42);
        let shard = match persistence {
            Some(persistence) => shard.with_persistence(persistence),
            None => shard,
        };
        Self {
            version: shard.definitions_version(),
            shard,
            index,
            shard_count,
            sockets: Vec::new(),
            memory_is_short: false,
            disk_is_short: false,
            began_at,
            ticks: 0,
            ticked_at: began_at,
            stalled_until: 0,
        }
    }

    /// The queues that were left are told of; the journals that they were left in are not needed for long.
    pub fn begin(&mut self, around: &mut Around<'_>) {
        self.begin_turn(around);
        self.take_mail(around);
        self.shard.leave_older_journals();
        self.end_turn(around);
    }

    /// Whether all of it is on disk as the broker ends in order.
    pub fn poll_settled(&mut self, around: &mut Around<'_>) -> bool {
        self.begin_turn(around);
        self.take_disk_replies(around);
        self.shard.finish_turn();
        let is_settled = self.shard.poll_settled();
        self.ask_disk(around);
        is_settled
    }

    fn now_micros(&self, around: &Around<'_>) -> u64 {
        (around.context.now - self.began_at) * 1000
    }

    fn take_disk_replies(&mut self, around: &mut Around<'_>) {
        while let Some(reply) = around.disk.try_reply(self.index) {
            around.context.activity += 1;
            self.shard.handle_disk(reply, self.now_micros(around));
            if let Some(failure) = self.shard.disk_failure() {
                around.context.failure = Some(failure.to_owned());
            }
        }
    }

    fn ask_disk(&mut self, around: &mut Around<'_>) {
        while let Some(request) = self.shard.poll_disk_request(self.now_micros(around)) {
            around.disk.submit(self.index, request);
        }
    }

    /// Takes in a client.
    pub fn accept(&mut self, around: &mut Around<'_>, wire: usize) {
        self.begin_turn(around);
        let slot = self.shard.handle_accepted(true).slot as usize;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        let socket = Socket { wire, input: Vec::new(), is_resumed: false, is_stuck: false, is_over: false };
        assert!(self.sockets[slot].replace(socket).is_none(), "a slot was given twice");
    }

    /// One turn: rings and mail, or some sockets, or both.
    pub fn turn(&mut self, around: &mut Around<'_>) {
        let takes_all = around.context.is_healthy;
        if self.stalled_until > around.context.step && !takes_all {
            return;
        }
        if around.context.now >= self.ticked_at + 100 {
            self.ticked_at = around.context.now;
            self.tick(around);
        }
        if takes_all || around.context.random.permille(600) {
            self.pump(around);
        }
        let first = around.context.random.below(self.sockets.len().max(1));
        for at in 0..self.sockets.len() {
            let slot = (first + at) % self.sockets.len();
            if self.sockets[slot].is_some() && (takes_all || around.context.random.permille(400)) {
                self.poll_connection(around, slot);
            }
        }
        for slot in 0..self.sockets.len() {
            if self.sockets[slot].as_ref().is_some_and(|socket| socket.is_over) {
                self.disconnected(around, slot);
            }
        }
    }

    fn begin_turn(&mut self, around: &mut Around<'_>) {
        self.shard.set_now(around.context.now - self.began_at);
        if self.take_definitions(around) {
            self.take_mail(around);
        }
    }

    fn take_definitions(&mut self, around: &Around<'_>) -> bool {
        let is_newer = around.control.published.version != self.version;
        if is_newer {
            self.version = around.control.published.version;
            self.shard.set_definitions(around.control.published.clone());
        }
        is_newer
    }

    fn pump(&mut self, around: &mut Around<'_>) {
        self.begin_turn(around);
        self.take_disk_replies(around);
        for peer in 0..self.shard_count {
            while let Some(batch) = around.rings.receive(around.context, peer, self.index) {
                self.take_mail(around);
                self.shard.handle_batch(peer, batch);
            }
        }
        self.take_mail(around);
        self.end_turn(around);
    }

    fn take_mail(&mut self, around: &mut Around<'_>) {
        while let Some(mail) = around.control.mails[self.index].pop_front() {
            around.context.activity += 1;
            self.take_definitions(around);
            self.shard.handle_control(mail);
        }
    }

    fn end_turn(&mut self, around: &mut Around<'_>) {
        for _ in 0..ROUNDS_MAX {
            self.shard.finish_turn();
            self.ask_disk(around);
            let mut wrote = false;
            while let Some(slot) = self.shard.poll_dirty() {
                self.flush(around, slot as usize);
                wrote = true;
            }
            if !wrote {
                break;
            }
        }
        for peer in 0..self.shard_count {
            if around.rings.has_room(self.index, peer)
                && let Some(batch) = self.shard.poll_batch(peer)
            {
                around.rings.send(around.context, self.index, peer, batch);
            }
        }
        while let Some(request) = self.shard.poll_control_request() {
            around.control.ask(request);
        }
        while let Some(slot) = self.shard.poll_resumed() {
            if let Some(socket) = self.sockets.get_mut(slot as usize).and_then(Option::as_mut) {
                socket.is_resumed = true;
            }
        }
        if self.memory_is_short != around.context.memory_is_short {
            self.memory_is_short = around.context.memory_is_short;
            self.shard.set_memory_is_short(self.memory_is_short);
        }
        if self.disk_is_short != around.context.disk_is_short {
            self.disk_is_short = around.context.disk_is_short;
            self.shard.set_disk_is_short(self.disk_is_short);
        }
    }

    fn flush(&mut self, around: &mut Around<'_>, slot: usize) {
        let Some(socket) = self.sockets.get_mut(slot).and_then(Option::as_mut) else { return };
        let number = u32::try_from(slot).expect("few");
        let Some(output) = self.shard.output(number) else { return };
        let wire = &mut around.wires[socket.wire];
        let waiting = output.len();
        let is_broken = waiting > 0 && wire.client_is_gone;
        let mut octets = 0;
        if waiting > 0 && !socket.is_over && !is_broken {
            let most =
                if around.context.random.permille(950) { usize::MAX } else { around.context.random.below(waiting) };
            octets = wire.write(&output.slices(SLICES_MAX), most);
            around.context.activity += activity(octets);
        }
        socket.is_stuck = octets < waiting && !is_broken;
        self.shard.handle_written(number, octets, socket.is_stuck);
        if is_broken || (!socket.is_stuck && self.shard.is_closed(number)) {
            socket.is_over = true;
        }
    }

    fn write_stuck(&mut self, around: &mut Around<'_>, slot: usize) {
        let number = u32::try_from(slot).expect("few");
        let mut wrote = false;
        while let Some(socket) = self.sockets[slot].as_mut()
            && socket.is_stuck
        {
            let wire = &mut around.wires[socket.wire];
            if wire.client_is_gone {
                socket.is_over = true;
                break;
            }
            let Some(output) = self.shard.output(number) else { break };
            let octets = wire.write(&[std::io::IoSlice::new(output.first())], usize::MAX);
            if octets == 0 {
                break;
            }
            around.context.activity += activity(octets);
            self.shard.handle_written(number, octets, false);
            self.flush(around, slot);
            wrote = true;
        }
        if wrote {
            self.end_turn(around);
        }
    }

    fn poll_connection(&mut self, around: &mut Around<'_>, slot: usize) {
        let number = u32::try_from(slot).expect("few");
        self.begin_turn(around);
        self.write_stuck(around, slot);
        for _ in 0..around.context.random.between(1, 4) {
            let Some(socket) = self.sockets[slot].as_mut() else { return };
            if socket.is_over {
                return;
            }
            if std::mem::take(&mut socket.is_resumed) {
                self.handle_input(around, slot, &[]);
                continue;
            }
            if !self.shard.takes_input(number) {
                return;
            }
            let wire = &mut around.wires[socket.wire];
            if wire.to_broker.is_empty() {
                socket.is_over = wire.client_is_gone;
                return;
            }
            let most =
                if around.context.random.permille(700) { 128 << 10 } else { around.context.random.between(1, 300) };
            let octets: Vec<u8> = wire.to_broker.drain(..most.min(wire.to_broker.len())).collect();
            around.context.activity += activity(octets.len());
            self.handle_input(around, slot, &octets);
            self.begin_turn(around);
        }
    }

    fn handle_input(&mut self, around: &mut Around<'_>, slot: usize, octets: &[u8]) {
        let socket = self.sockets[slot].as_mut().expect("the caller found it");
        socket.input.extend_from_slice(octets);
        let used = self.shard.handle_input(u32::try_from(slot).expect("few"), &socket.input);
        socket.input.drain(..used);
        let wire = &mut around.wires[socket.wire];
        wire.used += used as u64;
        around.events.push(Event::Used(socket.wire, wire.used));
        self.end_turn(around);
    }

    fn tick(&mut self, around: &mut Around<'_>) {
        self.begin_turn(around);
        self.ticks += 1;
        self.shard.handle_tick(self.ticks);
        self.end_turn(around);
    }

    fn disconnected(&mut self, around: &mut Around<'_>, slot: usize) {
        self.begin_turn(around);
        let Some(socket) = self.sockets[slot].take() else { return };
        self.shard.handle_disconnected(u32::try_from(slot).expect("few"));
        around.wires[socket.wire].broker_is_gone = true;
        around.events.push(Event::Disconnected(socket.wire));
        around.context.activity += 1;
        self.end_turn(around);
    }

    pub fn begin_shutdown(&mut self, around: &mut Around<'_>) {
        self.begin_turn(around);
        self.shard.begin_shutdown();
        self.end_turn(around);
    }
}
