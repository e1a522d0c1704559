//! The broker ends, in order or in the midst of anything, and is started again on what it has left.

use crate::{
    channel::Mode,
    client::Stage,
    control::Control,
    database::Database,
    disk::{Disk, End},
    driver::{Driver, UNIX_OFFSET_MILLIS},
    files::Damage,
    ledger::Survival,
    random::Random,
    ring::Rings,
    world::World,
};
use lepus::{
    definitions::{QueueDefinition, QueueId},
    queue::{
        Queue,
        recovery::{Left, RecoveredShards, look_at_files, recover_shards},
    },
    shard::{PagingSizes, PersistenceStart},
    store::{ColdFileId, JournalOptions, names::SegmentName},
};
use std::{collections::HashMap, io, sync::Arc};

/// Rounds that a broker may take to end in order.
const ROUNDS_MAX: usize = 3000;
/// Rounds without anything between shards, until it is believed that they have told each other all.
const QUIET_ROUNDS: usize = 5;
/// The keeper's channel for looking at queues.
const AUDIT_CHANNEL: u16 = 40;

/// How the brokers of a run store things: small, so that much happens.
pub struct StorePlan {
    pub segment_octets: u64,
    segments_target: usize,
    queue_memory_octets: u64,
    transient_memory_octets: u64,
    sizes: PagingSizes,
}

impl StorePlan {
    pub fn new(random: &mut Random) -> Self {
        Self {
            segment_octets: random.pick(&[128 << 10, 256 << 10]),
            segments_target: random.pick(&[1, 2, 2, 4]),
            queue_memory_octets: random.pick(&[1 << 10, 8 << 10, 64 << 10, 1 << 20]),
            transient_memory_octets: random.pick(&[16 << 10, u64::MAX]),
            sizes: PagingSizes {
                queue_octets_min: random.pick(&[1 << 10, 4 << 10, 64 << 10]),
                queue_octets_step: random.pick(&[512, 4096]),
                small_queue_octets_min: random.pick(&[512, 4096]),
                page_out_octets_max: random.pick(&[4 << 10, 64 << 10]),
                file_octets: random.pick(&[8 << 10, 64 << 10, 1 << 20]),
                relocated_octets_min: random.pick(&[256, 2 << 10, 32 << 10]),
                relocated_octets_min_crowded: random.pick(&[256, 1 << 10]),
            },
        }
    }
}

/// What outlives the broker, and how often it was started.
pub struct Store {
    pub plan: StorePlan,
    pub disk: Disk,
    epoch: u64,
    /// When the broker's clock began.
    began_at: u64,
    damage: Option<Damage>,
    seed: u64,
}

impl Store {
    pub fn new(seed: u64, random: &mut Random) -> Self {
        let plan = StorePlan::new(random);
        let disk = Disk::new(usize::try_from(plan.segment_octets).expect("segments are short"));
        Self { plan, disk, epoch: 0, began_at: 0, damage: None, seed }
    }

    fn recover(&self, definitions: &[Arc<QueueDefinition>], shard_count: usize) -> Result<RecoveredShards, String> {
        let files = &self.disk.files;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let left = Left {
            segments: files.segments(),
            segment_octets: self.plan.segment_octets,
            files: files.cold_files(),
            read_segment: &mut |name: &SegmentName| Ok(files.segment(name).ok_or_else(missing)?.to_vec()),
            read_cold: &mut |file: &ColdFileId, offset, octets| {
                let offset = usize::try_from(offset).map_err(io::Error::other)?;
                let read = files.read_cold(file, offset, octets);
                read.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            },
        };
        let unix_offset_millis = UNIX_OFFSET_MILLIS + self.began_at;
        recover_shards(left, definitions, shard_count, unix_offset_millis).map_err(|error| error.to_string())
    }

    /// What is there of each queue, for whoever looks for a mistake.
    fn tell_left(&self) -> String {
        use lepus::store::{
            History,
            replay::{OnDamage, ReplayOptions},
        };
        let files = &self.disk.files;
        let options = ReplayOptions { segment_octets: self.plan.segment_octets, on_damage: OnDamage::Salvage };
        let mut read = |name: &SegmentName| Ok(files.segment(name).expect("it is in the list").to_vec());
        let Ok(history) = History::read(files.segments(), options, &mut read) else { return String::new() };
        let mut told = format!("left are {:?}", files.segments().iter().map(SegmentName::path).collect::<Vec<_>>());
        let mut read_cold = |file: &ColdFileId, offset, octets| {
            let offset = usize::try_from(offset).map_err(io::Error::other)?;
            Ok(files.read_cold(file, offset, octets).expect("it is in the list").to_vec())
        };
        let found = look_at_files(&files.cold_files(), &history, &mut read_cold).unwrap_or_default();
        for file in found {
            told += &format!("\n        queue {} file {}, {}:", file.queue, file.number, file.contents.sound_octets);
            for note in &file.contents.notes {
                told += &format!(" {}..={}", note.head.first_position, note.head.last_position);
            }
        }
        for (id, queue) in history.queues() {
            let mut positions = Vec::new();
            let _ = history.for_each_live(&mut read, &mut |_, _, _| false, &mut |entry, _| {
                if entry.queue == id {
                    positions.push(entry.position);
                }
            });
            told += &format!(
                "\n        queue {id}, next {}, files {:?}, gone {:?}, below {} delivered; live: {positions:?}",
                queue.position_next, queue.cold_files, queue.cold_gone, queue.delivered_below
            );
        }
        told
    }

    fn persistence(&self, shard: usize, restored: ahash::AHashMap<QueueId, Queue>) -> PersistenceStart {
        let journal = JournalOptions {
            epoch: self.epoch,
            shard: u16::try_from(shard).expect("few"),
            segment_octets: self.plan.segment_octets,
            segments_target: self.plan.segments_target,
        };
        PersistenceStart {
            journal,
            restored,
            queue_memory_octets: self.plan.queue_memory_octets,
            transient_memory_octets: self.plan.transient_memory_octets,
            paging_sizes: self.plan.sizes,
        }
    }
}

impl World {
    /// Starts a broker on what the one before has left.
    ///
    /// # Errors
    /// Why it does not start.
    pub fn start(&mut self, shard_count: usize, database: Database) -> Result<(), Box<(String, Database)>> {
        let store = &mut self.store;
        store.epoch += 1;
        store.began_at = self.context.now;
        let (control, definitions) = Control::start(store.seed + store.epoch, shard_count, database);
        store.disk.open(store.epoch, shard_count);
        self.context.trace(|| store.tell_left());
        let recovered = match store.recover(&definitions, shard_count) {
            Ok(recovered) => recovered,
            Err(what) => return Err(Box::new((what, control.database))),
        };
        for file in &recovered.needless {
            if definitions.iter().any(|definition| definition.durable && definition.id.0 == file.queue) {
                store.disk.files.remove_cold(file);
            } else {
                store.disk.files.remove_queue(file.queue, false);
            }
        }
        store.disk.files.sync_queue_names();
        self.control = control;
        self.rings = Rings::new(&mut self.context, shard_count);
        let count: u64 = recovered.queues.iter().flat_map(|queues| queues.values()).map(Queue::message_count).sum();
        self.context.trace(|| format!("a broker starts with {shard_count} shards, {count} messages"));
        let make = |(index, restored)| {
            let persistence = store.persistence(index, restored);
            Driver::new(index, shard_count, &self.control, store.began_at, Some(persistence))
        };
        self.drivers = recovered.queues.into_iter().enumerate().map(make).collect();
        for shard in 0..shard_count {
            let (drivers, mut around) = self.around();
            drivers[shard].begin(&mut around);
        }
        Ok(())
    }

    /// The broker ends, and another one starts.
    pub fn restart(&mut self, end: End) {
        self.context.trace(|| format!("the broker ends: {end:?}"));
        self.context.end_at = None;
        let mut end = end;
        loop {
            self.end(end);
            if self.is_wrong() {
                return;
            }
            self.start_anew();
            if self.is_wrong() || !self.context.random.permille(250) {
                break;
            }
            // It ends before anybody has come.
            for _ in 0..self.context.random.below(60) {
                self.context.step += 1;
                self.context.now += self.context.random.below(30) as u64;
                let shard = self.context.random.below(self.drivers.len());
                self.turn(shard);
                self.store.disk.step(&mut self.context);
            }
            end = self.context.random.pick(&[End::Kill, End::PowerLoss]);
            self.context.trace(|| format!("the broker ends again: {end:?}"));
        }
        if self.is_wrong() {
            return;
        }
        let was_healthy = std::mem::replace(&mut self.context.is_healthy, true);
        let keeper = self.keeper();
        self.connect(keeper);
        self.settle_down(false);
        if self.context.failure.is_none() {
            self.clients[keeper].open_as(&mut self.context, 1, Mode::Plain);
            self.settle_down(false);
        }
        if !self.is_wrong() && self.context.failure.is_none() && self.context.random.permille(400) {
            self.audit();
        }
        self.context.is_healthy = was_healthy;
    }

    fn end(&mut self, end: End) {
        let is_clean = end == End::Clean;
        // A channel that the broker has closed, which its client has not read, may have had the last consumer.
        let is_leaving = |queue: &crate::topology::QueueNote| queue.auto_delete && queue.is_touched;
        let before: Vec<bool> = self.topology().iter().map(|queue| queue.may_be_gone || is_leaving(queue)).collect();
        self.clients_read_the_rest();
        for client in 0..self.clients.len() {
            self.clients[client].cut(&mut self.context);
        }
        for wire in &mut self.wires {
            wire.client_is_gone = true;
            wire.to_broker.clear();
            wire.to_client.clear();
        }
        if is_clean {
            self.run_down();
        }
        self.events.clear();
        self.store.disk.end(&mut self.context, end);
        let at_risk = |at: usize, queue: &crate::topology::QueueNote| {
            let may_be_gone = before[at] || (is_clean && queue.may_be_gone);
            may_be_gone || queue.is_lossy || queue.purges > 0
        };
        let at_risk: Vec<bool> = self.topology().iter().enumerate().map(|(at, queue)| at_risk(at, queue)).collect();
        self.at_risk = at_risk;
        self.must_be_there = (0..before.len())
            .filter(|at| {
                let queue = &self.topology()[*at];
                let may_be_gone = before[*at] || (is_clean && queue.may_be_gone);
                queue.is_durable && queue.is_declared && !may_be_gone
            })
            .collect();
        self.context.under_way.clear();
        self.context.positions.clear();
        self.context.memory_is_short = false;
        self.context.disk_is_short = false;
        self.ended_clean = is_clean;
    }

    fn topology(&self) -> &[crate::topology::QueueNote] {
        &self.context.ledger.topology.queues
    }

    /// What was in the sockets may still arrive, or a part of it.
    fn clients_read_the_rest(&mut self) {
        for client in &mut self.clients {
            if matches!(client.stage, Stage::Idle | Stage::Gone) {
                continue;
            }
            let wire = &mut self.wires[client.wire];
            let octets = match self.context.random.below(3) {
                0 => 0,
                1 => wire.to_client.len(),
                _ => self.context.random.below(wire.to_client.len() + 1),
            };
            client.input.extend(wire.to_client.drain(..octets));
            client.handle_input(&mut self.context);
        }
    }

    /// Ends in order, as the event loops do.
    fn run_down(&mut self) {
        let was_healthy = std::mem::replace(&mut self.context.is_healthy, true);
        self.store.disk.is_full = false;
        self.shut_down();
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            self.context.step += 1;
            self.context.now += 20;
            self.store.disk.run_all(&mut self.context);
            for _ in 0..20 {
                self.control.step(&mut self.context);
            }
            for shard in 0..self.drivers.len() {
                self.turn(shard);
            }
            let is_empty = self.drivers.iter().all(|driver| driver.shard.connection_count() == 0);
            let is_quiet = is_empty && self.rings.is_empty() && self.control.is_idle();
            // What did not fit into a ring follows in the next rounds.
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet < QUIET_ROUNDS {
                continue;
            }
            let (drivers, mut around) = self.around();
            let mut is_settled = true;
            for driver in drivers {
                is_settled &= driver.poll_settled(&mut around);
            }
            if is_settled {
                self.context.is_healthy = was_healthy;
                return;
            }
        }
        self.context.violation("the broker does not end".into());
    }

    /// Starts a broker; where it refuses what was damaged meanwhile, that is repaired.
    fn start_anew(&mut self) {
        if self.store.damage.is_none() && self.context.mutation.is_none() && self.context.random.permille(250) {
            self.store.damage = self.store.disk.files.damage(&mut self.context);
            if let Some(damage) = &self.store.damage {
                self.context.trace(|| format!("{} is {}", damage.path, damage.what));
            }
        }
        let shard_count = self.context.random.pick(&[1, 2, 2, 3, 4]);
        let mut database = std::mem::take(&mut self.control.database);
        loop {
            match self.start(shard_count, database) {
                Ok(()) => break,
                Err(refused) => {
                    let (what, kept) = *refused;
                    database = kept;
                    let damage = self.store.damage.take_if(|damage| damage.is_named_in(&what));
                    self.context.trace(|| format!("it does not start: {what}"));
                    let Some(damage) = damage else {
                        return self.context.violation(format!("the broker does not start: {what}"));
                    };
                    self.context.ledger.refusals += 1;
                    self.store.disk.files.repair(damage);
                }
            }
        }
        self.keep_books();
    }

    /// What was promised must be there.
    fn keep_books(&mut self) {
        let vhost = self.control.published.vhost(b"/").expect("the virtual host is there");
        let mut bindings: HashMap<(String, String), Vec<Vec<u8>>> = HashMap::new();
        for exchange in vhost.exchanges() {
            for binding in exchange.bindings() {
                let place = (exchange.name.to_string(), binding.destination.name().to_string());
                bindings.entry(place).or_default().push(binding.routing_key.to_vec());
            }
        }
        let exists = |name: &str| vhost.queue(name.as_bytes()).is_some();
        let ledger = &mut self.context.ledger;
        for at in &self.must_be_there {
            let name = &ledger.topology.queues[*at].name;
            if !exists(name) {
                ledger.violations.push(format!("the durable queue {name} is gone after a restart"));
            }
        }
        let survival = |(at, queue): (usize, &crate::topology::QueueNote)| Survival {
            is_there: queue.is_durable && exists(&queue.name),
            is_at_risk: self.at_risk[at],
        };
        let survivals: Vec<Survival> = ledger.topology.queues.iter().enumerate().map(survival).collect();
        ledger.ended(self.ended_clean, &survivals);
        ledger.topology.restarted(exists);
        for binding in ledger.topology.bindings.iter().filter(|binding| binding.is_certain && !binding.is_leaving) {
            let (exchange, queue) =
                (crate::topology::EXCHANGES[binding.exchange].0, &ledger.topology.queues[binding.queue].name);
            let found = bindings.get(&(exchange.into(), queue.clone()));
            if !found.is_some_and(|keys| keys.iter().any(|key| key == binding.key.as_bytes())) {
                ledger.violations.push(format!("the binding of {queue} to {exchange} is gone after a restart"));
            }
        }
    }

    /// Looks at all that is in each queue, before anybody else does.
    fn audit(&mut self) {
        let keeper = self.keeper();
        for queue in self.queues_left() {
            self.clients[keeper].open_as(&mut self.context, AUDIT_CHANNEL, Mode::Plain);
            self.settle_down(false);
            if self.context.failure.is_some() {
                return;
            }
            self.clients[keeper].audit(&mut self.context, AUDIT_CHANNEL, queue);
            self.settle_down(false);
            if self.context.failure.is_some() {
                return;
            }
            for what in self.context.ledger.unseen(|at| at == queue).into_iter().take(5) {
                self.context.violation(format!("lost by a restart: {what}"));
            }
            if self.is_wrong() {
                return;
            }
            self.context.ledger.audited(queue);
            if self.context.random.permille(150) {
                self.settle_down(true);
            }
            self.clients[keeper].close_channel(&mut self.context, AUDIT_CHANNEL);
            self.settle_down(false);
            if self.context.failure.is_some() {
                return;
            }
        }
    }

    /// A shard cannot go on with what the disk has returned: the broker ends.
    pub fn handle_failure(&mut self) {
        while !self.is_wrong()
            && let Some(what) = self.context.failure.take()
        {
            self.restart_after(&what);
        }
    }

    fn restart_after(&mut self, what: &str) {
        self.context.trace(|| format!("the broker ends of itself: {what}"));
        let Some(damage) = self.store.damage.take_if(|damage| damage.is_named_in(what)) else {
            return self.context.violation(format!("the broker ends of itself: {what}"));
        };
        self.context.ledger.refusals += 1;
        self.store.disk.files.repair(damage);
        self.restart(End::Kill);
    }

    /// What happens around the disk.
    pub fn step_disk(&mut self) {
        for _ in 0..self.context.random.below(3) {
            self.store.disk.step(&mut self.context);
        }
        if let Some((at, end)) = self.context.end_at
            && at <= self.context.step
        {
            self.restart(end);
        }
        match self.context.random.below(2000) {
            0..3 => {
                let end = self.context.random.pick(&[End::Kill, End::Kill, End::PowerLoss, End::PowerLoss, End::Clean]);
                self.restart(end);
            }
            3..7 => {
                let is_full = !self.store.disk.is_full && self.context.random.permille(500);
                self.store.disk.is_full = is_full;
                self.context.trace(|| format!("the disk is full: {is_full}"));
            }
            7..9 => {
                self.context.disk_is_short = !self.context.disk_is_short && self.context.random.permille(500);
            }
            _ => {}
        }
        self.handle_failure();
    }
}
