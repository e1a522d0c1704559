//! One run: shards, rings, the control plane and clients on one thread, step by step from one seed; then the reckoning.

use crate::{
    actions::choose_priorities,
    channel::{Mode, Pending},
    client::{Client, Stage},
    context::Context,
    control::Control,
    database::Database,
    disk::End,
    driver::{Around, Driver, Event},
    faults::Mutation,
    restart::Store,
    ring::Rings,
    topology::{EXCHANGES, TOP_TO_FAN},
    wire::Wire,
};
use lepus::protocol::{
    field_table::TableRef,
    method::{Method, connection, exchange},
};

/// Rounds that the world may take to come to rest.
const ROUNDS_MAX: usize = 3000;
/// Rounds without anything happening, until it is believed.
const QUIET_ROUNDS: usize = 6;
/// The same where the journals rest some time after all else.
const QUIET_ROUNDS_DURABLE: usize = 16;
/// Credit that a shard may owe another at the end, in octets: it gives it back in steps.
const CREDIT_OWED_MAX: u64 = lepus::limits::CREDIT_OCTETS_STEP;

/// What a run came to.
pub struct Report {
    pub violations: Vec<String>,
    pub digest: u64,
    pub messages: usize,
    pub deliveries: u64,
    pub confirms: u64,
    pub has_mutated: bool,
    pub store: StoreReport,
}

/// What happened to what is durable.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreReport {
    pub restarts: u64,
    pub refusals: u64,
    pub blocked: u64,
    pub commits: u64,
    pub page_outs: u64,
    pub loads: u64,
    pub retired: u64,
    pub full: u64,
}

pub struct World {
    pub context: Context,
    pub drivers: Vec<Driver>,
    pub rings: Rings,
    pub control: Control,
    pub wires: Vec<Wire>,
    pub clients: Vec<Client>,
    pub events: Vec<Event>,
    pub store: Store,
    /// Of the broker that has ended last: queues that may have lost messages, ...
    pub at_risk: Vec<bool>,
    /// ... and those that must be there.
    pub must_be_there: Vec<usize>,
    pub ended_clean: bool,
}

/// Runs one seed.
pub fn run(seed: u64, steps: u64, is_durable: bool, mutation: Option<Mutation>, is_verbose: bool) -> Report {
    let mut world = World::new(seed, is_durable, mutation, is_verbose);
    world.set_up();
    world.context.is_healthy = false;
    for _ in 0..steps {
        world.step();
        if !world.context.ledger.violations.is_empty() {
            break;
        }
    }
    if is_durable && !world.is_wrong() && world.context.random.permille(700) {
        let end = world.context.random.pick(&[End::Clean, End::Kill, End::PowerLoss]);
        world.restart(end);
    }
    while !world.is_wrong() {
        world.handle_failure();
        world.reckon();
        if world.context.failure.is_none() {
            break;
        }
    }
    let (context, disk) = (world.context, world.store.disk);
    let store = StoreReport {
        restarts: context.ledger.restarts,
        refusals: context.ledger.refusals,
        blocked: context.ledger.blocked_by_disk,
        commits: disk.commits,
        page_outs: disk.page_outs,
        loads: disk.loads,
        retired: disk.retired,
        full: disk.refusals,
    };
    Report {
        digest: context.ledger.digest,
        messages: context.ledger.message_count(),
        deliveries: context.ledger.deliveries,
        confirms: context.ledger.confirms,
        has_mutated: context.mutation.is_some_and(|planned| planned.is_done),
        store,
        violations: context.ledger.violations,
    }
}

impl World {
    fn new(seed: u64, is_durable: bool, mutation: Option<Mutation>, is_verbose: bool) -> Self {
        let mut context = Context::new(seed, mutation, is_verbose);
        context.is_durable = is_durable;
        context.is_heavy = context.random.permille(150);
        let shard_count = context.random.pick(&[1, 2, 2, 3, 3, 4]);
        let (control, _) = Control::start(seed, shard_count, Database::default());
        let drivers = (0..shard_count).map(|index| Driver::new(index, shard_count, &control, 0, None)).collect();
        let rings = Rings::new(&mut context, shard_count);
        let count = context.random.between(2, 7);
        let mut clients: Vec<Client> = (0..=count).map(|index| Client::new(&mut context, index)).collect();
        for client in clients.iter_mut().filter(|_| context.is_heavy && context.random.permille(600)) {
            (client.gulp, client.publish_share) = (200_000, 950);
        }
        context.trace(|| format!("seed {seed}: {shard_count} shards, {count} clients, heavy: {}", context.is_heavy));
        let store = Store::new(seed, &mut context.random);
        let mut world = Self {
            context,
            drivers,
            rings,
            control,
            wires: Vec::new(),
            clients,
            events: Vec::new(),
            store,
            at_risk: Vec::new(),
            must_be_there: Vec::new(),
            ended_clean: true,
        };
        if is_durable && world.start(shard_count, Database::default()).is_err() {
            world.context.violation("a broker does not start with nothing".into());
        }
        world
    }

    /// The client that sets everything up and takes it down; it does nothing in between.
    pub fn keeper(&self) -> usize {
        self.clients.len() - 1
    }

    pub fn connect(&mut self, client: usize) {
        let wire = self.wires.len();
        let room = self.context.random.pick(&[300, 4096, 65_536, 1 << 20]);
        self.wires.push(Wire { client, room, ..Wire::default() });
        self.clients[client].connect(&mut self.context, wire);
        let shard = self.context.random.below(self.drivers.len());
        let (drivers, mut around) = self.around();
        drivers[shard].accept(&mut around, wire);
    }

    pub fn around(&mut self) -> (&mut Vec<Driver>, Around<'_>) {
        let Self { context, drivers, rings, control, wires, events, store, .. } = self;
        (drivers, Around { context, rings, control, wires, disk: &mut store.disk, events })
    }

    pub fn turn(&mut self, shard: usize) {
        let (drivers, mut around) = self.around();
        drivers[shard].turn(&mut around);
        self.tell_clients();
    }

    /// The clients' books follow what the broker has done.
    fn tell_clients(&mut self) {
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Used(wire, used) => {
                    let client = &mut self.clients[self.wires[wire].client];
                    if client.wire == wire && client.stage != Stage::Idle {
                        client.handle_used(&mut self.context, used);
                    }
                }
                Event::Disconnected(wire) => {
                    let client = &mut self.clients[self.wires[wire].client];
                    if client.wire == wire && client.stage != Stage::Idle {
                        client.handle_disconnected(&mut self.context);
                    }
                }
            }
        }
    }

    /// One client reads, acts, writes.
    fn serve_client(&mut self, index: usize, acts: bool) {
        let client = &mut self.clients[index];
        if matches!(client.stage, Stage::Idle | Stage::Gone) || client.is_asleep(&self.context) {
            return;
        }
        let wire = &mut self.wires[client.wire];
        client.read(&mut self.context, wire);
        client.handle_input(&mut self.context);
        if acts {
            client.act(&mut self.context, wire);
        }
        client.write(&mut self.context, wire);
    }

    fn step(&mut self) {
        self.context.step += 1;
        if self.context.is_durable {
            self.step_disk();
        }
        let keeper = self.keeper();
        match self.context.random.below(100) {
            0..40 => {
                let shard = self.context.random.below(self.drivers.len());
                self.turn(shard);
            }
            40..80 => {
                let client = self.context.random.below(keeper);
                if self.clients[client].stage == Stage::Idle {
                    if self.context.random.permille(100) {
                        self.connect(client);
                    }
                } else {
                    self.serve_client(client, true);
                }
            }
            80..88 => self.control.step(&mut self.context),
            88..90 => self.serve_client(keeper, false),
            90..98 => self.context.now += self.context.random.between(0, 40) as u64,
            98 => {
                let is_short = self.context.random.permille(if self.context.memory_is_short { 200 } else { 60 });
                if is_short != self.context.memory_is_short {
                    self.context.trace(|| format!("memory is short: {is_short}"));
                    self.context.memory_is_short = is_short;
                }
            }
            _ => {
                let chance = self.context.random.below(40);
                if chance < 2 {
                    self.context.now += 900;
                } else if chance < 4 {
                    let shard = self.context.random.below(self.drivers.len());
                    let steps = self.context.random.between(50, 800) as u64;
                    self.drivers[shard].stalled_until = self.context.step + steps;
                    self.context.trace(|| format!("shard {shard} does nothing for {steps} steps"));
                }
            }
        }
    }

    /// Lets everything go well until nothing moves. `finishes`: the clients acknowledge all that they hold.
    pub fn settle_down(&mut self, finishes: bool) {
        self.context.is_healthy = true;
        self.context.memory_is_short = false;
        self.context.disk_is_short = false;
        self.store.disk.is_full = false;
        let quiet_rounds = if self.context.is_durable { QUIET_ROUNDS_DURABLE } else { QUIET_ROUNDS };
        for wire in &mut self.wires {
            wire.room = 1 << 20;
        }
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let before = self.context.activity;
            self.context.step += 1;
            self.context.now += 20;
            if self.context.is_durable {
                self.store.disk.run_all(&mut self.context);
            }
            for _ in 0..20 {
                self.control.step(&mut self.context);
            }
            for shard in 0..self.drivers.len() {
                self.turn(shard);
            }
            for client in 0..self.clients.len() {
                self.serve_client(client, false);
                if finishes && self.clients[client].stage == Stage::Running {
                    self.clients[client].finish(&mut self.context);
                }
            }
            quiet = if self.context.activity == before { quiet + 1 } else { 0 };
            let is_idle = self.rings.is_empty() && self.control.is_idle() && self.store.disk.is_idle();
            if (quiet >= quiet_rounds && is_idle) || self.context.failure.is_some() {
                return;
            }
        }
        let idle = (self.rings.is_empty(), self.control.is_idle(), self.store.disk.is_idle());
        self.context.violation(format!(
            "the world does not come to rest; rings, control, disk are idle: {idle:?}, quiet {quiet}"
        ));
    }

    /// Asks for something on the keeper's channel 1, and waits.
    fn keep(&mut self, method: &Method<'_>, pending: Pending) {
        let keeper = self.keeper();
        self.clients[keeper].ask(&mut self.context, 1, method, pending);
        self.settle_down(false);
    }

    fn set_up(&mut self) {
        let keeper = self.keeper();
        self.connect(keeper);
        self.settle_down(false);
        self.clients[keeper].open_as(&mut self.context, 1, Mode::Plain);
        self.settle_down(false);
        for (name, kind) in &EXCHANGES[1..] {
            let method = exchange::Declare {
                exchange: name.as_bytes(),
                kind: kind.as_bytes(),
                passive: false,
                durable: self.context.is_durable,
                auto_delete: false,
                internal: false,
                no_wait: false,
                arguments: TableRef::EMPTY,
            };
            self.keep(&Method::ExchangeDeclare(method), Pending::Other);
        }
        let bind = exchange::Bind {
            destination: b"fan",
            source: b"top",
            routing_key: TOP_TO_FAN.as_bytes(),
            no_wait: false,
            arguments: TableRef::EMPTY,
        };
        self.keep(&Method::ExchangeBind(bind), Pending::Other);
        for _ in 0..self.context.random.between(1, 5) {
            let allows_no_ack = self.context.random.permille(300);
            let is_durable = self.context.is_durable && self.context.random.permille(800);
            let queue = self.context.ledger.topology.add_queue(None, false, allows_no_ack, is_durable);
            choose_priorities(&mut self.context, queue);
            self.clients[keeper].declare_queue(&mut self.context, 1, queue);
            self.settle_down(false);
            for _ in 0..self.context.random.below(4) {
                let exchange = self.context.random.between(1, EXCHANGES.len() - 1);
                if self.clients[keeper].channels[&1].is_free() {
                    self.clients[keeper].bind_to(&mut self.context, 1, queue, exchange);
                }
                self.settle_down(false);
            }
        }
        for client in 0..keeper {
            self.connect(client);
        }
    }

    /// Everything goes well from here on: what was promised must come true.
    fn reckon(&mut self) {
        self.context.trace(|| "everything settles down".into());
        self.settle_down(true);
        if self.context.failure.is_some() {
            return;
        }
        let waiting: Vec<String> = self.clients.iter().filter_map(Client::waits_for).collect();
        for what in waiting {
            self.context.violation(format!("in vain, {what}"));
        }
        self.check_consumed();
        if self.is_wrong() {
            return;
        }
        self.take_the_rest();
        if self.context.failure.is_some() {
            return;
        }
        for what in self.context.ledger.missing(|_| true).into_iter().take(5) {
            self.context.violation(format!("lost: {what}"));
        }
        for what in self.context.ledger.wrongly_returned() {
            self.context.violation(what);
        }
        if !self.is_wrong() {
            self.close_everything();
        }
    }

    pub fn is_wrong(&self) -> bool {
        !self.context.ledger.violations.is_empty()
    }

    /// A queue with a consumer that acknowledges everything must be empty.
    fn check_consumed(&mut self) {
        let running = self.clients.iter().filter(|client| client.stage == Stage::Running);
        let consumers =
            running.flat_map(|client| client.channels.values()).flat_map(|channel| channel.consumers.values());
        let consumed: Vec<usize> = consumers.map(|consumer| consumer.queue).collect();
        for what in self.context.ledger.missing(|queue| consumed.contains(&queue)).into_iter().take(5) {
            self.context.violation(format!("a consumer waits in vain: {what}"));
        }
    }

    /// The queues that exist, by the index of the clients' books.
    pub fn queues_left(&self) -> Vec<usize> {
        let vhost = self.control.published.vhost(b"/").expect("the virtual host is there");
        let queues = &self.context.ledger.topology.queues;
        (0..queues.len()).filter(|at| vhost.queue(queues[*at].name.as_bytes()).is_some()).collect()
    }

    /// Consumes what is left in the queues: exclusive ones by their owners.
    fn take_the_rest(&mut self) {
        let left = self.queues_left();
        for (at, note) in self.context.ledger.topology.queues.iter().enumerate() {
            if note.is_declared && !note.may_be_gone && !left.contains(&at) {
                let what = format!("queue {} is gone without a reason", note.name);
                self.context.ledger.violations.push(what);
            }
        }
        for queue in left {
            if self.context.failure.is_some() {
                return;
            }
            let owner = self.context.ledger.topology.queues[queue].exclusive_owner;
            let client = owner.unwrap_or(self.keeper());
            if self.clients[client].stage != Stage::Running {
                continue;
            }
            let number = u16::try_from(50 + queue).expect("few");
            self.clients[client].open_as(&mut self.context, number, Mode::Plain);
            self.settle_down(true);
            if self.context.failure.is_some() {
                return;
            }
            self.clients[client].consume_from(&mut self.context, number, queue, false, false);
            self.settle_down(true);
        }
    }

    fn close_everything(&mut self) {
        let keeper = self.keeper();
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        let shuts_down = self.context.random.permille(300);
        for client in 0..keeper {
            if self.clients[client].stage == Stage::Running && !shuts_down {
                self.clients[client].close_connection(&mut self.context, &Method::ConnectionClose(close));
            }
        }
        self.settle_down(true);
        let numbers: Vec<u16> = self.clients[keeper].channels.keys().copied().filter(|number| *number != 1).collect();
        for number in numbers {
            self.clients[keeper].close_channel(&mut self.context, number);
            self.settle_down(true);
        }
        if !shuts_down {
            self.check_settled();
        }
        for queue in self.queues_left() {
            if self.context.ledger.topology.queues[queue].exclusive_owner.is_none() {
                self.clients[keeper].delete_queue(&mut self.context, 1, queue);
                self.settle_down(true);
            }
        }
        if shuts_down {
            self.shut_down();
        } else {
            self.clients[keeper].close_connection(&mut self.context, &Method::ConnectionClose(close));
        }
        self.settle_down(true);
        self.check_empty();
    }

    pub fn shut_down(&mut self) {
        self.context.trace(|| "the broker shuts down".into());
        for shard in 0..self.drivers.len() {
            let (drivers, mut around) = self.around();
            drivers[shard].begin_shutdown(&mut around);
            self.tell_clients();
        }
    }

    /// Nothing is delivered any more: every delivery across shards to a queue that exists must have been settled.
    fn check_settled(&mut self) {
        let vhost = self.control.published.vhost(b"/").expect("the virtual host is there");
        let ids: Vec<u64> = vhost.queues().map(|queue| queue.id.0).collect();
        let left = self.context.positions.iter().filter(|(queue, _)| ids.contains(queue)).count();
        if left > 0 {
            self.context.violation(format!("{left} deliveries across shards were never settled"));
        }
        let acknowledged: u64 = self.drivers.iter().map(|driver| driver.shard.metrics().acknowledged).sum();
        if acknowledged != self.context.ledger.acknowledged {
            let told = self.context.ledger.acknowledged;
            self.context.violation(format!("clients acknowledged {told} deliveries, shards counted {acknowledged}"));
        }
    }

    /// Nobody is there any more, and no queue: nothing may be left.
    fn check_empty(&mut self) {
        let leaks = self.context.strikes(Mutation::LeakConnection);
        if leaks {
            let wire = self.wires.len();
            self.wires.push(Wire::default());
            let (drivers, mut around) = self.around();
            drivers[0].accept(&mut around, wire);
        }
        for (index, driver) in self.drivers.iter().enumerate() {
            let shard = &driver.shard;
            let (connections, queues) = (shard.connection_count(), shard.queue_count());
            let octets = shard.octets_in_use();
            if connections + queues > 0 || octets > 0 {
                let what =
                    format!("shard {index} ends with {connections} connections, {queues} queues, {octets} octets");
                self.context.ledger.violations.push(what);
            }
        }
        let credit = self.rings.credit_owed();
        if credit >= CREDIT_OWED_MAX {
            self.context.violation(format!("{credit} octets of credit were never given back"));
        }
        let files = self.store.disk.files.cold_files();
        if !files.is_empty() && self.drivers.iter().all(|driver| driver.shard.queue_count() == 0) {
            self.context.violation(format!("{} files of queues are left", files.len()));
        }
        if !self.queues_left().is_empty() {
            self.context.violation("queues are still defined".into());
        }
    }
}
