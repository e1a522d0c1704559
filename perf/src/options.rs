//! What the user asks for. Short flags are those of RabbitMQ's PerfTest where they mean the same.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::compare::CompareOptions;
use crate::exit::EXIT_CODES;
use crate::export::ExportOptions;
use crate::output_options::OutputOptions;
use crate::stamp::NUMBER_OCTETS;
use crate::suite::SuiteCommand;
use crate::sweep::SweepCommand;
use crate::uri::AmqpUri;
use crate::versus::VersusCommand;
use crate::view_options::ViewOptions;

/// Producers have two octets in a stamp.
pub const PRODUCERS_MAX: usize = 1 << 16;

/// A load generator for AMQP 0-9-1 brokers: Lepus, RabbitMQ, LavinMQ.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one workload: a live view on standard error, the result on standard output
    Run(Box<RunCommand>),
    /// Find the highest rate that keeps objectives such as p99.9<5ms
    Sweep(Box<SweepCommand>),
    /// Run one workload against several brokers in turn, and show them side by side
    Versus(Box<VersusCommand>),
    /// Run the scenarios of a file
    Suite(Box<SuiteCommand>),
    /// Compare the latencies and rates of runs: side by side, with ratios to the first and intervals of confidence
    Compare(CompareOptions),
    /// Write a kept result in another format: CSV, HdrHistogram's, SVG, PNG, HTML
    Export(ExportOptions),
}

/// `lepus-perf run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct RunCommand {
    /// The workload.
    #[command(flatten)]
    pub run: RunOptions,
    /// What is shown meanwhile.
    #[command(flatten)]
    pub view: ViewOptions,
    /// What is to become of its result.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// A workload, and where it is to run: [`RunArguments`], which these dereference to, and how they were given.
#[derive(Clone, Debug)]
pub struct RunOptions {
    arguments: RunArguments,
    /// The long names of options that were given, with their values.
    given: BTreeMap<String, Vec<String>>,
}

/// Options that say where a workload runs, not what it is.
const PLACES: [&str; 4] = ["uri", "broker-pid", "cores", "keep"];

impl RunOptions {
    /// From words as on the command line: `-x`, `2`, `--rate=20000`. They are checked.
    ///
    /// # Errors
    /// A sentence, or several, for the user.
    pub fn try_parse_from(words: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: RunOptions,
        }
        let words = ["run".to_owned()].into_iter().chain(words.into_iter().map(Into::into));
        let options = Line::try_parse_from(words).map_err(|fault| fault.to_string())?.options;
        options.check()?;
        Ok(options)
    }

    /// These options with another value for one of them, by its long name without dashes: `("rate", "20000")`. A flag's value
    /// is `true` or `false`.
    ///
    /// # Errors
    /// Where there is no such option, or not with this value.
    pub fn with(&self, name: &str, value: &str) -> Result<Self, String> {
        let mut given = self.given.clone();
        given.insert(name.to_owned(), vec![value.to_owned()]);
        let mut words = Vec::new();
        for (name, values) in &given {
            for value in values {
                match (is_flag(name), value.as_str()) {
                    (true, "true") => words.push(format!("--{name}")),
                    (true, _) => {}
                    (false, value) => words.push(format!("--{name}={value}")),
                }
            }
        }
        Self::try_parse_from(words)
    }

    /// Whether the option of this long name was given.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The workload as it was given: `rate` → `20000`; flags have the value `true`, several values are divided by blanks.
    /// What says where it runs, such as the URI, is left out.
    pub fn workload(&self) -> BTreeMap<String, String> {
        let is_workload = |(name, _): &(&String, &Vec<String>)| !PLACES.contains(&name.as_str());
        self.given.iter().filter(is_workload).map(|(name, values)| (name.clone(), values.join(" "))).collect()
    }
}

fn is_flag(long_name: &str) -> bool {
    let command = RunArguments::augment_args(clap::Command::new("run"));
    command
        .get_arguments()
        .any(|argument| argument.get_long() == Some(long_name) && !argument.get_action().takes_values())
}

impl Deref for RunOptions {
    type Target = RunArguments;

    fn deref(&self) -> &RunArguments {
        &self.arguments
    }
}

impl Args for RunOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        RunArguments::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        RunArguments::augment_args_for_update(command)
    }
}

impl FromArgMatches for RunOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = BTreeMap::new();
        for argument in RunArguments::augment_args(clap::Command::new("run")).get_arguments() {
            let (id, long_name) =
                (argument.get_id().as_str(), argument.get_long().expect("every option has a long name"));
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                continue;
            }
            let raw = matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
            let values = if argument.get_action().takes_values() { raw.collect() } else { vec!["true".to_owned()] };
            given.insert(long_name.to_owned(), values);
        }
        Ok(Self { arguments: RunArguments::from_arg_matches(matches)?, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The options of `lepus-perf run`.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// Broker, as amqp://user:password@host:port/vhost
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2F")]
    pub uri: AmqpUri,
    /// Producers, each with a connection of its own
    #[arg(short = 'x', long, default_value_t = 1, value_name = "N")]
    pub producers: usize,
    /// Consumers, each with a connection of its own
    #[arg(short = 'y', long, default_value_t = 1, value_name = "N")]
    pub consumers: usize,
    /// Queue; with --queues its name is the first part of theirs
    #[arg(short = 'u', long, default_value = "lepus-perf", value_name = "NAME")]
    pub queue: String,
    /// Queues; each is read by one consumer, or by several where there are more consumers than queues
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub queues: usize,
    /// Octets of a body; 6 at least, for the sequence number, and 16 for latencies
    #[arg(short = 's', long, default_value_t = 16, value_name = "OCTETS")]
    pub size: usize,
    /// Messages a second of all producers together (PerfTest: of each). Open loop: latency counts from when a message
    /// should have been sent. Without it: as fast as the broker takes them
    #[arg(short = 'r', long, value_name = "MESSAGES")]
    pub rate: Option<f64>,
    /// Publisher confirms, with so many messages of each producer unconfirmed at most
    #[arg(short = 'c', long, value_name = "WINDOW")]
    pub confirm: Option<u64>,
    /// Messages that each consumer may have unacknowledged; 0 means any number
    #[arg(short = 'q', long, default_value_t = 0, value_name = "N")]
    pub prefetch: u16,
    /// Acknowledge every N messages at once
    #[arg(short = 'A', long, default_value_t = 1, value_name = "N")]
    pub multi_ack_every: u64,
    /// Consume without acknowledgements
    #[arg(short = 'a', long = "auto-ack")]
    pub auto_ack: bool,
    /// Flags of messages. persistent: with durable queues and exchange
    #[arg(short = 'f', long = "flag", value_name = "FLAG")]
    pub flags: Vec<MessageFlag>,
    /// Exchange to publish to; it is declared and afterwards deleted [default: the default exchange]
    #[arg(short = 'e', long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub exchange: String,
    /// Type of the exchange
    #[arg(short = 't', long = "type", default_value = "direct", value_name = "TYPE")]
    pub kind: ExchangeKind,
    /// Bindings of a topic exchange, a multiple of --queues: `k7.x.y`, `k7.*.y`, `k7.#`, `*.k7.#` in turn. The routing
    /// keys rotate, and each matches one binding [default: one for each queue]
    #[arg(long, value_name = "N")]
    pub bindings: Option<usize>,
    /// Seconds to measure, after the warm-up; 0 means until Ctrl-C [default: 10, or as long as --count takes]
    #[arg(short = 'z', long = "time", value_name = "SECONDS")]
    pub time: Option<u64>,
    /// Seconds before that, which do not count [default: 2, or 0 with --count]
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<u64>,
    /// End after so many messages of all producers together; without producers: of all consumers
    #[arg(long, value_name = "MESSAGES")]
    pub count: Option<u64>,
    /// Publish only while fewer messages than this were published and not yet received
    #[arg(long, value_name = "MESSAGES")]
    pub in_flight: Option<u64>,
    /// Cores to run on, as 1 or 0,2-3; threads are pinned to them in turn [default: all, not pinned]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// Process of the broker, where it runs on this machine: its CPU time and memory are reported
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// Leave queues, and what is in them, behind
    #[arg(long)]
    pub keep: bool,
}

/// Flags of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageFlag {
    /// Delivery mode 2.
    Persistent,
}

/// Types of exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExchangeKind {
    /// To the queue that is bound with the key; the keys rotate.
    Direct,
    /// To all queues.
    Fanout,
    /// To the queue whose pattern matches.
    Topic,
}

impl ExchangeKind {
    /// As AMQP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
        }
    }
}

/// Numbers and ranges of cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(pub Vec<usize>);

impl std::str::FromStr for CoreList {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "numbers and ranges of cores, such as 0,2-3";
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| FAULT);
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= rustix::thread::CpuSet::MAX_CPU {
                return Err(FAULT);
            }
            cores.extend(first..=last);
        }
        Ok(Self(cores))
    }
}

impl RunArguments {
    /// Messages survive the broker's restart.
    pub fn is_persistent(&self) -> bool {
        self.flags.contains(&MessageFlag::Persistent)
    }

    /// How long to warm up.
    pub fn warmup(&self) -> Duration {
        Duration::from_secs(self.warmup.unwrap_or(if self.count.is_some() { 0 } else { 2 }))
    }

    /// How long to measure; `None` until a count is reached or Ctrl-C.
    pub fn time(&self) -> Option<Duration> {
        match (self.time, self.count) {
            (Some(0), _) | (None, Some(_)) => None,
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, None) => Some(Duration::from_secs(10)),
        }
    }

    /// Finds what contradicts itself.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        let bindings = self.bindings.unwrap_or(self.queues);
        let faults = [
            (self.producers == 0 && self.consumers == 0, "nothing to do: neither producers nor consumers"),
            (self.producers > PRODUCERS_MAX, "at most 65536 producers"),
            (self.queues == 0, "--queues: at least 1"),
            (self.size < NUMBER_OCTETS, "--size: at least 6 octets, for the sequence number that each body carries"),
            (self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())), "--rate: more than 0"),
            (self.rate.is_some() && self.in_flight.is_some(), "--in-flight would close the open loop of --rate"),
            (self.in_flight.is_some() && self.consumers == 0, "--in-flight needs consumers"),
            (self.confirm == Some(0), "--confirm: at least 1"),
            (self.multi_ack_every == 0, "--multi-ack-every: at least 1"),
            (
                self.prefetch > 0 && self.multi_ack_every > u64::from(self.prefetch) && !self.auto_ack,
                "--multi-ack-every beyond --prefetch would wait for ever",
            ),
            (self.bindings.is_some() && self.kind != ExchangeKind::Topic, "--bindings is for -t topic"),
            (self.kind != ExchangeKind::Direct && self.exchange.is_empty(), "-t needs an exchange: -e NAME"),
            (
                self.queues > 0 && (bindings == 0 || !bindings.is_multiple_of(self.queues)),
                "--bindings: a multiple of --queues",
            ),
            (self.exchange.len() > 255 || self.queue.len() > 240, "names have 255 octets at most"),
        ];
        match faults.into_iter().find(|(is_so, _)| *is_so) {
            Some((_, sentence)) => Err(sentence.to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<RunOptions, String> {
        RunOptions::try_parse_from(line.split_whitespace())
    }

    /// Goal: a command line of PerfTest means what it means there.
    #[test]
    fn short_flags() {
        let options =
            parse("--uri amqp://u:p@h/v -x 2 -y 3 -u orders -s 1000 -c 100 -q 50 -A 10 -f persistent -z 30 -r 5e3")
                .expect("well-formed");
        assert_eq!((options.producers, options.consumers, options.size), (2, 3, 1000));
        assert_eq!((options.uri.vhost.as_str(), options.queue.as_str()), ("v", "orders"));
        assert_eq!((options.confirm, options.prefetch, options.multi_ack_every), (Some(100), 50, 10));
        assert!(options.is_persistent() && !options.auto_ack);
        assert_eq!((options.rate, options.time()), (Some(5000.0), Some(Duration::from_secs(30))));
    }

    /// Goal: a workload is told as it was given, without where it runs; and can be changed by an option's name.
    #[test]
    fn given_options() {
        let options = parse("-x 2 -a --uri amqp://u:secret@h -r 5e3").expect("well-formed");
        let workload: Vec<_> = options.workload().into_iter().collect();
        let expected = [("auto-ack", "true"), ("producers", "2"), ("rate", "5e3")];
        assert_eq!(workload, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let other = options.with("rate", "70").and_then(|other| other.with("auto-ack", "false")).expect("well-formed");
        assert_eq!((other.rate, other.auto_ack, other.producers, other.uri.host.as_str()), (Some(70.0), false, 2, "h"));
        assert!(options.with("rate", "x").is_err() && options.with("nothing", "1").is_err());
    }

    /// Goal: how long a run is, by what is given.
    #[test]
    fn durations() {
        for (line, time, warmup) in [
            ("", Some(10), 2),
            ("-z 0", None, 2),
            ("--count 5", None, 0),
            ("-z 4", Some(4), 2),
            ("--count 5 -z 3 --warmup 1", Some(3), 1),
        ] {
            let options = parse(line).expect("well-formed");
            let found = (options.time().map(|time| time.as_secs()), options.warmup().as_secs());
            assert_eq!(found, (time, warmup), "{line}");
        }
    }

    #[test]
    fn contradictions() {
        for line in [
            "-x 0 -y 0",
            "-s 5",
            "-r 0",
            "-r -1",
            "-c 0",
            "-q 10 -A 11",
            "--bindings 5",
            "-t fanout",
            "-A 0",
            "-e x -t topic --queues 2 --bindings 3",
            "--queues 0",
            "-r 5 --in-flight 5",
            "--cores 3-1",
            "-f mandatory",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["-s 6", "-q 10 -A 10", "-e x -t topic --queues 2 --bindings 4", "-x 0", "-y 0", "-a -q 10 -A 11"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn core_lists() {
        assert_eq!("0,2-4,7".parse(), Ok(CoreList(vec![0, 2, 3, 4, 7])));
        for text in ["", "a", "1-", "2-1", "99999"] {
            assert!(text.parse::<CoreList>().is_err(), "{text}");
        }
    }
}
