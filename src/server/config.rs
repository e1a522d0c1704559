//! The command line: what may be asked for, under which flag and environment variable, and what holds otherwise.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

pub use crate::server::core_list::CoreList;
pub use crate::server::disk_space::DiskLimit;
pub use crate::server::memory_limit::MemoryLimit;

/// The most shards that may be asked for. Each pair of shards holds rings, so their memory grows with the square.
pub const SHARDS_MAX: u16 = 256;

/// A fast and safe AMQP 0-9-1 message broker for Linux, one shard per core.
#[derive(Debug, Parser)]
#[command(
    name = "lepus",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Without a command, lepus serves. Every flag may also be given as the environment variable named beside it.\n\n\
        Exit codes: 0 it ended in order; 1 it cannot start, or the data directory is damaged; 2 the command line is wrong; \
        74 the disk has failed while the broker ran; 101 a mistake in the broker itself."
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: ServeOptions,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker (this is what lepus does without a command).
    Serve(ServeOptions),
    /// Tell what is in the data directory of a broker that does not run: queues, files, damage.
    ///
    /// Nothing in it is changed. Exit codes: 0 nothing was found to be damaged; 1 something is, or the directory cannot be looked at.
    Inspect(InspectOptions),
    /// Verify the data directory of a broker that does not run, every octet of it; with --salvage, make it usable again.
    ///
    /// Exit codes: 0 nothing is damaged, or what could be kept was; 1 something is damaged, or the directory cannot be looked at.
    Recover(RecoverOptions),
}

/// What is to be looked at, and how it is told.
#[derive(Clone, Debug, Args)]
pub struct InspectOptions {
    /// The data directory.
    #[arg(value_name = "DATA-DIR")]
    pub data_dir: PathBuf,

    /// Tell it as one JSON object instead of tables.
    ///
    /// directory; format; epoch: how often it was started; messages: in all.
    ///
    /// queues: vhost, name, id (the name of its directory below queues/), messages, body_octets, files, file_octets.
    ///
    /// journal_segments: file, epoch, shard, segment (its number), batches, records, batch_octets, file_octets, torn_at: the offset of
    /// a batch that was not complete when the broker ended, of which nobody was told; null if there is none.
    ///
    /// queue_files: file, queue (its id), octets, synced_octets: what a journal says must be there, extents, written_messages: dead
    /// ones counted.
    ///
    /// damage: file, offset, what (a sentence).
    #[arg(long)]
    pub json: bool,
}

/// What is to be verified, and what is done about damage.
#[derive(Clone, Debug, Args)]
pub struct RecoverOptions {
    /// The data directory.
    #[arg(value_name = "DATA-DIR")]
    pub data_dir: PathBuf,

    /// Keep what can be kept, and make the directory one that the broker starts with.
    ///
    /// Tells what was kept and what is lost. Damaged files are moved to DATA-DIR/damaged-DATE. Messages whose acknowledgements are
    /// lost come back.
    #[arg(long)]
    pub salvage: bool,
}

impl CommandLine {
    /// What is to be done, whether `serve` was spelled out or not.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.options))
    }

    /// What to serve with.
    #[cfg(test)]
    pub(super) fn into_serve_options(self) -> ServeOptions {
        match self.into_command() {
            Command::Serve(options) => options,
            other => panic!("{other:?} was not asked for"),
        }
    }
}

/// How the broker is to run.
#[derive(Clone, Debug, Args)]
pub struct ServeOptions {
    /// IP address to listen on. 0.0.0.0 means all of IPv4, :: all of IPv4 and IPv6.
    ///
    /// The user guest may log in from this machine only, whatever the address.
    #[arg(long, value_name = "ADDRESS", env = "LEPUS_BIND", default_value = "127.0.0.1")]
    #[arg(hide_env_values = true, value_parser = parse_address)]
    pub bind: IpAddr,

    /// TCP port to listen on. 0 takes any free one and shows it.
    #[arg(long, value_name = "PORT", env = "LEPUS_PORT", default_value_t = 5672, hide_env_values = true)]
    pub port: u16,

    /// Number of shards, each a thread with its own connections and queues. [default: one per available core]
    ///
    /// Cores that the CPU affinity or a container's CPU quota takes away do not count. More shards than cores
    /// are allowed; then none is pinned to a core.
    #[arg(long, value_name = "N", env = "LEPUS_SHARDS", hide_env_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    pub shards: Option<u16>,

    /// Cores to pin the shards to, in this order: numbers and ranges, such as 0,2-3. [default: those available]
    ///
    /// Alone it also says how many shards there are. With more shards than cores in the list they go round it.
    #[arg(long, value_name = "LIST", env = "LEPUS_CORES", hide_env_values = true)]
    pub cores: Option<CoreList>,

    /// What to log on standard error: error, warn, info, debug or trace, for all or by module, as in
    /// `info,lepus::server=debug`.
    #[arg(long, value_name = "FILTER", env = "LEPUS_LOG", default_value = "info", hide_env_values = true)]
    #[arg(value_parser = parse_log_filter)]
    pub log: String,

    /// Memory above which publishers are paused until consumers have caught up: a share (60%) or a size
    /// (512MiB, 4GB, octets).
    ///
    /// A share is taken of what the container or the machine has, whichever is less.
    #[arg(long, value_name = "LIMIT", env = "LEPUS_MEMORY_LIMIT", default_value = "60%", hide_env_values = true)]
    pub memory_limit: MemoryLimit,

    /// Directory for what outlives the broker's process, made if it is not there. [default: /var/lib/lepus for root, else
    /// $XDG_DATA_HOME/lepus or ~/.local/share/lepus]
    ///
    /// One broker uses it at a time. As a service of systemd with StateDirectory= it is that directory.
    #[arg(long, value_name = "DIR", env = "LEPUS_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,

    /// Memory above which messages of durable queues leave it and are on disk only, until their turn comes: a share (1%) or a
    /// size (64MiB, octets), shared by all shards.
    ///
    /// No more than a quarter of the memory limit.
    #[arg(long, value_name = "SIZE", env = "LEPUS_QUEUE_MEMORY", default_value = "64MiB", hide_env_values = true)]
    pub queue_memory: MemoryLimit,

    /// The same for messages of queues that are not durable: a share or a size. [default: they stay in memory, and publishers
    /// are paused at the memory limit]
    ///
    /// What left the memory is on disk until its turn comes, and is wiped when the broker starts.
    #[arg(long, value_name = "SIZE", env = "LEPUS_TRANSIENT_MEMORY", hide_env_values = true)]
    pub transient_memory: Option<MemoryLimit>,

    /// Room that is to stay free on the disk of the data directory: below it publishers are paused. A size (512MiB, 4GB,
    /// octets); 0 to use all of it.
    #[arg(long, value_name = "SIZE", env = "LEPUS_DISK_LIMIT", default_value = "50MB", hide_env_values = true)]
    pub disk_limit: DiskLimit,

    /// JSON file with users, vhosts, permissions, exchanges, queues and bindings, as
    /// `rabbitmqctl export_definitions` writes it: what is not there yet is added at each start.
    ///
    /// Users and permissions are set as the file says; queues and exchanges that exist stay as they are.
    #[arg(long, value_name = "FILE", env = "LEPUS_DEFINITIONS", hide_env_values = true)]
    pub definitions: Option<PathBuf>,

    /// Let pinned shards look for work for 200 microseconds before they sleep: lower latency, more CPU time.
    #[arg(long, env = "LEPUS_BUSY_POLL", hide_env_values = true, value_parser = BoolishValueParser::new())]
    pub busy_poll: bool,
}

/// Reads an IP address; an IPv6 address may stand in brackets.
fn parse_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "not an IP address; use 127.0.0.1 for this machine only, 0.0.0.0 for all of IPv4".into())
}

/// Lets through what [`EnvFilter`] understands, so that a mistake is found before anything is started.
fn parse_log_filter(text: &str) -> Result<String, String> {
    // EnvFilter takes a word that is no level for a module's name, and then logs everything of it.
    let is_level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word.trim());
    let word = text.split(',').find(|part| !part.contains(['=', '[']) && !is_level(&part.to_ascii_lowercase()));
    if let Some(word) = word {
        return Err(format!("not a log filter ('{word}' is no level); write off, error, warn, info, debug or trace"));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => Err(format!("not a log filter ({reason}); write a level, or 'info,lepus::server=debug'")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<ServeOptions, clap::Error> {
        let command_line = CommandLine::try_parse_from(["lepus"].iter().chain(arguments));
        command_line.map(CommandLine::into_serve_options)
    }

    fn check_refused(arguments: &[&str], part: &str) {
        let error = parse(arguments).expect_err("refused").to_string();
        assert!(error.contains(part), "{arguments:?}: {error}");
    }

    /// Goal: the command line is well-formed. Method: clap's own check of it.
    #[test]
    fn command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    /// Goal: nothing needs to be said. Method: parse nothing, and `serve` alone.
    #[test]
    fn defaults() {
        for arguments in [&[][..], &["serve"]] {
            let options = parse(arguments).expect("accepted");
            assert_eq!((options.bind.to_string(), options.port), ("127.0.0.1".to_owned(), 5672));
            assert_eq!((options.shards, options.cores), (None, None));
            assert_eq!((options.data_dir, options.definitions), (None, None));
            assert_eq!((options.log.as_str(), options.memory_limit), ("info", MemoryLimit::Percent(60)));
            assert!(!options.busy_poll);
        }
    }

    /// Goal: every flag is accepted with and without the subcommand. Method: give all of them, both ways.
    #[test]
    fn flags_with_and_without_the_subcommand() {
        let flags = ["--bind", "[::1]", "--port", "0", "--shards", "256", "--cores", "0,2-3", "--log", "lepus=trace"];
        let more = ["--memory-limit", "512MiB", "--data-dir", "data", "--definitions", "d.json", "--busy-poll"];
        for subcommand in [&[][..], &["serve"]] {
            let options = parse(&[subcommand, &flags, &more].concat()).expect("accepted");
            assert_eq!((options.bind.to_string(), options.port), ("::1".to_owned(), 0));
            assert_eq!(options.shards, Some(256));
            assert_eq!(options.cores.expect("cores").as_slice(), [0, 2, 3]);
            assert_eq!((options.log.as_str(), options.memory_limit), ("lepus=trace", MemoryLimit::Octets(512 << 20)));
            assert_eq!(options.data_dir, Some(PathBuf::from("data")));
            assert_eq!(options.definitions, Some(PathBuf::from("d.json")));
            assert!(options.busy_poll);
        }
    }

    /// Goal: the other commands take a directory, and need one. Method: with it and without, with their flags.
    #[test]
    fn other_commands_take_a_directory() {
        let parse = |arguments: &[&str]| CommandLine::try_parse_from(["lepus"].iter().chain(arguments));
        let command = |arguments: &[&str]| parse(arguments).expect("accepted").into_command();
        assert!(matches!(command(&["inspect", "d"]), Command::Inspect(options) if !options.json));
        assert!(matches!(command(&["inspect", "--json", "d"]), Command::Inspect(options) if options.json));
        assert!(matches!(command(&["recover", "d"]), Command::Recover(options) if !options.salvage));
        assert!(matches!(command(&["recover", "--salvage", "d"]), Command::Recover(options) if options.salvage));
        for arguments in
            [&["inspect"][..], &["recover", "--salvage"], &["recover", "--json", "d"], &["--port", "1", "inspect", "d"]]
        {
            assert!(parse(arguments).is_err(), "{arguments:?}");
        }
    }

    /// Goal: a bad value is refused with its reason. Method: one for each flag that has rules.
    #[test]
    fn bad_values_are_refused() {
        check_refused(&["--bind", "localhost"], "not an IP address");
        check_refused(&["--port", "65536"], "65536");
        check_refused(&["--shards", "0"], "1..=256");
        check_refused(&["--shards", "257"], "1..=256");
        check_refused(&["--cores", "1-"], "not a core number");
        check_refused(&["--log", "lepus=loud"], "not a log filter");
        check_refused(&["--data-dir", ""], "--data-dir");
        check_refused(&["--memory-limit", "101%"], "from 1% to 100%");
    }

    /// Goal: each flag has its environment variable, named after it. Method: compare for every argument of the command.
    #[test]
    fn every_flag_has_its_environment_variable() {
        let command = CommandLine::command();
        for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
            let flag = argument.get_long().expect("only long flags");
            if flag == "version" {
                continue;
            }
            let variable = format!("LEPUS_{}", flag.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(variable.as_str()), "--{flag}");
        }
    }
}
