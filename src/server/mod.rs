//! The process around the shards: options, what the machine offers, the listening socket, start and end.
//!
//! It knows nothing of the protocol, of queues or of definitions.

pub mod banner;
mod cgroup;
#[cfg(test)]
mod child_test;
pub mod config;
mod core_list;
pub mod listener;
pub mod machine;
mod memory_limit;
mod panic_hook;
mod placement;
pub mod preflight;
pub mod shards;
pub mod shutdown;
pub mod start_error;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::server::banner::Banner;
use crate::server::config::ServeOptions;
use crate::server::listener::{Listener, Stop};
use crate::server::machine::Machine;
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
    preflight::register_membarrier();
    panic_hook::install();
    start_log(&options.log);
    let setup = |what: &str| {
        let what = what.to_owned();
        |source| StartError::Setup { what, source }
    };

    let machine = Machine::look();
    let cores = placement::place_shards(&options, &machine)?;
    let open_files_most = machine::raise_open_files();
    let io_memory_octets = preflight::check(cores.len())?;
    let memory_limit_octets = options.memory_limit.octets(machine.memory_octets);
    info!(?machine, open_files_most, io_memory_octets, "the machine");

    let mut shutdown = Shutdown::catch().map_err(setup("signal handlers"))?;
    let stop = Stop::new().map_err(setup("the end of the listener"))?;
    // Before the shards: an occupied port is found without starting any. Who connects meanwhile waits in the backlog.
    let listener = Listener::bind(SocketAddr::new(options.bind, options.port))?;
    let banner = Banner { address: listener.address(), cores: &cores, memory_limit_octets, pid: std::process::id() };
    let shards = start_shards(ShardPlan {
        cores: cores.clone(),
        busy_poll: options.busy_poll,
        memory_limit_octets,
        io_memory_octets,
        definitions: options.definitions,
    })?;

    thread::scope(|scope| {
        let accept = || listener.run(&stop, |stream, peer| shards.place(stream, peer));
        thread::Builder::new().name("listener".into()).spawn_scoped(scope, accept).map_err(setup("the listener"))?;
        banner.print();
        let signal = shutdown.wait();
        info!(signal, "closing all connections");
        stop.raise();
        Ok(())
    })?;
    let deadline = Instant::now() + SHUTDOWN_MOST;
    shards.begin_shutdown();
    if !shards.join(deadline) {
        warn!("some clients did not take their close in time");
    }
    info!("ended");
    Ok(())
}

/// Logs to standard error from now on. `filter` was checked when it was parsed.
fn start_log(filter: &str) {
    let filter = EnvFilter::try_new(filter).expect("the filter was parsed before");
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    // Refused only where a program that embeds the broker logs already; then it keeps its own.
    let _ = log.try_init();
}
