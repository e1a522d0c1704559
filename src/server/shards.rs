//! Starts the shards' threads and the control plane, hands connections to them, ends them. A driver.

use crate::{
    control::{
        database::Database,
        plane::ControlPlane,
        thread::{Control, Desk},
    },
    definitions::{QueueId, Registry, ShardIndex, import::Import},
    limits::{JOURNAL_SEGMENT_OCTETS, JOURNAL_SEGMENTS_TARGET, QUEUE_MEMORY_OCTETS_MIN},
    queue::Queue,
    server::{
        allocator,
        data_dir::DataDir,
        disk_space,
        recovery::{RecoveredStore, recover_store},
        ring_memory::RingPlan,
        start_error::StartError,
    },
    shard::{
        PagingSizes, PersistenceStart, Shard,
        event_loop::{self, Gauges, Published, ShardStart},
        mesh::{self, Mail, Mailbox},
    },
    store::{
        JournalOptions,
        disk_thread::{DiskStart, DiskThreads},
    },
};
use ahash::AHashMap;
use std::{
    io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often it is looked whether all shards have ended.
const END_POLL: Duration = Duration::from_millis(2);

/// What shards are started with.
#[derive(Debug)]
pub struct ShardPlan {
    /// One entry for each shard: the core that it is pinned to, `None` where it is not. Never empty.
    pub cores: Vec<Option<usize>>,
    /// Whether shards spin instead of sleeping.
    pub busy_poll: bool,
    /// Above how much memory publishers are paused, in octets.
    pub memory_limit_octets: u64,
    /// Above how much memory messages of durable queues are moved to disk, in octets.
    pub queue_memory_octets: u64,
    /// The same for messages of queues that are not durable; `None` where they stay in memory.
    pub transient_memory_octets: Option<u64>,
    /// Below how much room on the disk publishers are paused, in octets.
    pub disk_limit_octets: u64,
    /// The rings of each executor, so that all fit under the limit on locked memory.
    pub rings: RingPlan,
    /// Where what outlives the process is kept.
    pub data_dir: DataDir,
    /// What is to exist besides what was kept.
    pub definitions: Option<PathBuf>,
}

/// Shards that run. Shared between the thread that accepts connections and the one that waits for the end.
#[derive(Debug)]
pub struct RunningShards {
    mailboxes: Vec<Mailbox>,
    gauges: Arc<Vec<Gauges>>,
    data_dir: DataDir,
}

/// What the database gives at start.
struct Restored {
    database: Database,
    /// The number of this start, never used before and on disk already. What is written from now on carries it.
    epoch: u64,
    registry: Registry,
}

/// Starts one thread for each shard with what was kept. When it returns, every executor has made its rings and
/// takes connections.
///
/// # Errors
/// Where what was kept or the definitions file can't be loaded, or a thread can't be made. What an executor is refused with is a
/// [`StartError::IoUring`].
pub fn start_shards(plan: ShardPlan) -> Result<RunningShards, StartError> {
    let count = plan.cores.len();
    assert!(count > 0, "a plan without shards");
    let Restored { mut database, epoch, registry } = restore(&plan, count)?;
    let (mut plane, mut outcome) = ControlPlane::new(registry, count);
    database.commit(&std::mem::take(&mut outcome.durable))?;
    let clock = Instant::now();
    let unix_millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let unix_offset_millis = u64::try_from(unix_millis).unwrap_or(0);
    let RecoveredStore { files, queues } =
        recover_store(plan.data_dir.path(), epoch, count, &outcome.created, unix_offset_millis)?;
    tracing::debug!(epoch, queues = outcome.created.len(), "definitions are there");
    let (links, mailboxes) = mesh::connect(count);
    let published = Arc::new(Published::new(plane.snapshot()));
    let gauges: Arc<Vec<Gauges>> = Arc::new(std::iter::repeat_with(Gauges::default).take(count).collect());
    let control = Control::new(plane, Some(database), outcome, mailboxes.clone(), Arc::clone(&published))
        .map_err(|error| setup("the thread for logins", error))?;
    let (queue, requests) = mpsc::channel();
    let (failed, failures) = mpsc::channel();
    let path = plan.data_dir.path().to_owned();
    let disk_is_short = disk_space::watch(path, plan.disk_limit_octets, mailboxes.clone())
        .map_err(|error| setup("the watch over the disk", error))?;
    let reply_secret =
        getrandom::u64().map_err(|error| setup("random numbers", io::Error::other(error.to_string())))?;
    for (index, ((links, restored), core)) in links.into_iter().zip(queues).zip(&plan.cores).enumerate() {
        let number = ShardIndex(u16::try_from(index).expect("shards are bounded"));
        let shard = Shard::new(number, count, published.load(), unix_offset_millis, reply_secret)
            .with_persistence(persistence(&plan, epoch, number, restored));
        let doorbell = Arc::clone(&links.doorbell);
        let notify = Box::new(move || doorbell.ring());
        let disk = DiskThreads::start(DiskStart { files: Arc::clone(&files), shard: number.0, core: *core, notify })
            .map_err(|error| setup("a shard's disk threads", error))?;
        let desk = Desk::new(Arc::clone(&control), queue.clone());
        let start = ShardStart {
            shard,
            links,
            core: *core,
            busy_poll: plan.busy_poll,
            ring_entries: plan.rings.depth,
            io_memory_octets: plan.rings.io_memory_octets,
            published: Arc::clone(&published),
            control: Box::new(move |request| desk.ask(request)),
            gauges: Arc::clone(&gauges),
            memory_limit_octets: plan.memory_limit_octets,
            disk: Some(disk),
            disk_is_short: Arc::clone(&disk_is_short),
            collect_memory: allocator::collect,
            clock,
        };
        spawn_shard(index, start, failed.clone())?;
    }
    drop(failed);
    drop(queue);
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || control.run(&requests))
        .map_err(|error| setup("the control plane's thread", error))?;
    // Each shard tells once that it runs, or why it doesn't.
    for _ in 0..count {
        match failures.recv() {
            Ok(None) => {}
            Ok(Some(reason)) => return Err(StartError::IoUring { source: io::Error::other(reason) }),
            Err(_) => return Err(setup("a shard's executor", io::Error::other("its thread ended"))),
        }
    }
    plan.data_dir.keep_reserve();
    Ok(RunningShards { mailboxes, gauges, data_dir: plan.data_dir })
}

/// What one shard keeps on disk, and how much of it in memory.
fn persistence(
    plan: &ShardPlan,
    epoch: u64,
    shard: ShardIndex,
    restored: AHashMap<QueueId, Queue>,
) -> PersistenceStart {
    let count = plan.cores.len() as u64;
    PersistenceStart {
        journal: JournalOptions {
            epoch,
            shard: shard.0,
            segment_octets: JOURNAL_SEGMENT_OCTETS,
            segments_target: JOURNAL_SEGMENTS_TARGET,
        },
        restored,
        queue_memory_octets: (plan.queue_memory_octets.min(plan.memory_limit_octets / 4) / count)
            .max(QUEUE_MEMORY_OCTETS_MIN),
        transient_memory_octets: plan.transient_memory_octets.map_or(u64::MAX, |octets| octets / count),
        paging_sizes: PagingSizes::default(),
    }
}

fn spawn_shard(index: usize, start: ShardStart, started: Sender<Option<String>>) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            let told = started.clone();
            if let Err(reason) = event_loop::run(start, move || {
                let _ = told.send(None);
            }) {
                let _ = started.send(Some(reason));
            }
        })
        .map_err(|error| setup("a shard's thread", error))
}

fn setup(what: &str, source: io::Error) -> StartError {
    StartError::Setup { what: what.into(), source }
}

/// Opens the database, begins an epoch, and reads what was kept; the definitions file is merged into it.
fn restore(plan: &ShardPlan, shard_count: usize) -> Result<Restored, StartError> {
    plan.data_dir.release_reserve();
    let mut database = Database::open(&plan.data_dir.definitions_file())?;
    let epoch = database.begin_epoch()?;
    let shards = u16::try_from(shard_count).expect("shards are bounded");
    let mut registry = match database.load()? {
        None => Registry::new(),
        Some(kept) => Registry::restore(kept, shards)
            .map_err(|error| database.error(format_args!("{}: {}", error.what, error.reason)))?,
    };
    if let Some(path) = &plan.definitions {
        import_definitions(path, &mut registry, shards)?;
    }
    Ok(Restored { database, epoch, registry })
}

fn import_definitions(path: &Path, registry: &mut Registry, shard_count: u16) -> Result<(), StartError> {
    let file = path.display().to_string();
    let octets = std::fs::read(path)
        .map_err(|error| StartError::Definitions(format!("cannot read the definitions file {file}: {error}.")))?;
    let import = Import::parse(&file, &octets, shard_count);
    let refused = |error: crate::definitions::import::ImportError| {
        StartError::Definitions(format!("cannot use the definitions file {error}"))
    };
    let import = import.map_err(refused)?;
    for note in &import.notes {
        tracing::warn!("{file}: {note}");
    }
    for note in import.apply_to(registry).map_err(refused)? {
        tracing::warn!("{file}: {note}");
    }
    Ok(())
}

impl RunningShards {
    /// Hands a connection to the least loaded shard. Does not block.
    pub fn place(&self, stream: TcpStream, peer: SocketAddr) {
        let least = self.gauges.iter().enumerate().min_by_key(|(_, gauges)| gauges.connections.load(Ordering::Relaxed));
        let (index, gauges) = least.expect("there is a shard");
        gauges.connections.fetch_add(1, Ordering::Relaxed);
        self.mailboxes[index].post(Mail::Connection(stream, peer));
    }

    /// Asks every shard to close its connections (320) and to end. Does not block.
    pub fn begin_shutdown(&self) {
        for mailbox in &self.mailboxes {
            mailbox.post(Mail::Shutdown);
        }
    }

    /// Waits until every shard has ended, at most until `deadline`. Returns whether all have. The process must end then: it keeps
    /// the data directory to itself.
    pub fn join(self, deadline: Instant) -> bool {
        // The control plane's thread, which nobody waits for, may still be writing.
        std::mem::forget(self.data_dir);
        loop {
            if self.gauges.iter().all(|gauges| gauges.has_ended.load(Ordering::Acquire)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(END_POLL);
        }
    }
}
