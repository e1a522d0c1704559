//! The process around the shards: options, what the machine offers, the listening socket, start and end.
//!
//! It knows nothing of the protocol, of queues or of definitions.

mod allocator;
pub mod banner;
mod cgroup;
#[cfg(test)]
mod child_test;
pub mod config;
mod core_list;
pub mod data_dir;
pub mod disk_space;
pub mod listener;
pub mod machine;
mod memory_limit;
pub mod offline;
mod panic_hook;
mod placement;
pub mod preflight;
mod recovery;
pub mod ring_memory;
pub mod shards;
pub mod shutdown;
pub mod start_error;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use rustix::fs::Mode;
use tracing::{debug, info, warn};
use tracing_subscriber::EnvFilter;

use crate::server::banner::Banner;
use crate::server::config::ServeOptions;
use crate::server::data_dir::DataDir;
use crate::server::listener::{Listener, Stop};
use crate::server::machine::Machine;
use crate::server::ring_memory::RingPlan;
use crate::server::shards::{ShardPlan, start_shards};
use crate::server::shutdown::{SHUTDOWN_MOST, Shutdown};
use crate::server::start_error::StartError;

/// Runs the broker until SIGTERM or SIGINT ends it.
///
/// To be called first in `main`, while the process has one thread. From then on a panic of any thread ends the
/// process.
///
/// # Errors
/// Why it could not start. Once it listens, it only ends well.
pub fn run(options: ServeOptions) -> Result<(), StartError> {
    let huge_pages_off = preflight::settle_process();
    panic_hook::install();
    start_log(&options.log);
    let setup = |what: &str| {
        let what = what.to_owned();
        |source| StartError::Setup { what, source }
    };

    let machine = Machine::look();
    let mut cores = placement::place_shards(&options, &machine)?;
    let open_files_most = machine::raise_open_files();
    let is_default = options.shards.is_none() && options.cores.is_none();
    let rings = check_rings(&mut cores, is_default)?;
    let memory_limit_octets = options.memory_limit.octets(machine.memory_octets);
    debug!(?machine, open_files_most, ?rings, "what the machine gives");

    let mut shutdown = Shutdown::catch().map_err(setup("signal handlers"))?;
    let stop = Stop::new().map_err(setup("the end of the listener"))?;
    // Before the shards: an occupied port is found without starting any. Who connects meanwhile waits in the backlog.
    let listener = Listener::bind(SocketAddr::new(options.bind, options.port))?;
    let data_dir = open_data_dir(options.data_dir)?;
    let data_path = data_dir.path().to_owned();
    let banner = Banner {
        address: listener.address(),
        cores: &cores,
        data_path: &data_path,
        memory_limit_octets,
        pid: std::process::id(),
    };
    let shards = start_shards(ShardPlan {
        cores: cores.clone(),
        busy_poll: options.busy_poll,
        memory_limit_octets,
        queue_memory_octets: options.queue_memory.octets(machine.memory_octets),
        transient_memory_octets: options.transient_memory.map(|limit| limit.octets(machine.memory_octets)),
        disk_limit_octets: options.disk_limit.octets(),
        rings,
        data_dir,
        definitions: options.definitions,
    })?;
    drop(huge_pages_off);

    thread::scope(|scope| {
        let accept = || listener.run(&stop, |stream, peer| shards.place(stream, peer));
        thread::Builder::new().name("listener".into()).spawn_scoped(scope, accept).map_err(setup("the listener"))?;
        banner.print();
        let signal = shutdown.wait();
        info!(signal, "closing all connections");
        stop.raise();
        Ok::<(), StartError>(())
    })?;
    let deadline = Instant::now() + SHUTDOWN_MOST;
    shards.begin_shutdown();
    if !shards.join(deadline) {
        warn!("some clients did not take their close in time");
    }
    info!("ended");
    Ok(())
}

/// The data directory that was asked for, else where it is expected.
fn open_data_dir(asked: Option<PathBuf>) -> Result<DataDir, StartError> {
    // What lies there is for this user alone: messages, and hashes of passwords.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let path = match asked {
        Some(path) => path,
        None => data_dir::default_path(rustix::process::geteuid().is_root(), |name| std::env::var_os(name))?,
    };
    Ok(DataDir::open(&path)?)
}

/// The rings of each shard. Where too little memory may be locked for as many as there are cores, and no other number
/// was asked for, there are as many shards as possible.
fn check_rings(cores: &mut Vec<Option<usize>>, is_default: bool) -> Result<RingPlan, StartError> {
    let checked = preflight::check(cores.len());
    match &checked {
        Err(reason @ StartError::LockedMemory { shards_possible, .. }) if is_default && *shards_possible > 0 => {
            cores.truncate(*shards_possible);
            warn!("{reason} Starting {} instead.", cores.len());
            preflight::check(cores.len())
        }
        _ => checked,
    }
}

/// Logs to standard error from now on. `filter` was checked when it was parsed.
fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).expect("the filter was parsed before");
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    // Refused only where a program that embeds the broker logs already; then it keeps its own.
    let _ = log.try_init();
}
