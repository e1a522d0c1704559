//! What the user asks for. Short flags are those of RabbitMQ's PerfTest where they mean the same.

pub mod arrivals;
mod idle;
pub mod sizes;
pub mod uri;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, Parser};

use crate::engine::stamp::STAMP_OCTETS;
use crate::options::arrivals::{Process, Profile};
use crate::options::sizes::Sizes;
use crate::options::uri::{AmqpUri, UriParser};
pub use crate::options::values::{CoreList, ExchangeKind, MessageFlag, QueueArgument, Ramp, Workload};

/// Producers have two octets in a stamp.
pub const PRODUCERS_MAX: usize = 1 << 16;

/// A workload, and where it is to run: [`RunArguments`], which these dereference to, and how they were given.
#[derive(Clone)]
pub struct RunOptions {
    arguments: RunArguments,
    /// The long names of options that were given, with their values.
    given: BTreeMap<String, Vec<String>>,
}

/// Without what was given, which has passwords.
impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RunOptions").field(&self.arguments).finish()
    }
}

/// More messages a second than any machine can send.
const RATE_MAX: f64 = 1e8;
/// Messages that may wait to be got one by one.
const GET_IN_FLIGHT_DEFAULT: u64 = 1000;
/// Options that say where a workload runs, not what it is.
const PLACES: [&str; 6] = ["uri", "broker-pid", "cores", "threads", "spin", "keep"];

impl RunOptions {
    /// From words as on the command line: `-x`, `2`, `--rate=20000`. They are checked.
    ///
    /// # Errors
    /// A sentence, or several, for the user.
    pub fn try_parse_from(words: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        let options = Self::parse_unchecked(words)?;
        options.check()?;
        Ok(options)
    }

    /// As [`RunOptions::try_parse_from`], but they may contradict each other.
    ///
    /// # Errors
    /// A sentence, or several, for the user.
    pub fn parse_unchecked(words: impl IntoIterator<Item = impl Into<String>>) -> Result<Self, String> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            options: RunOptions,
        }
        let words = ["run".to_owned()].into_iter().chain(words.into_iter().map(Into::into));
        Ok(Line::try_parse_from(words).map_err(|fault| fault.to_string())?.options)
    }

    /// Finds what contradicts itself, and what would do nothing.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        self.arguments.check()?;
        let idle = idle::idle(self);
        idle.first().map_or(Ok(()), |(name, why)| Err(format!("--{name} would do nothing: {why}")))
    }

    /// Long names of options that were given, and would do nothing beside the others.
    pub fn idle(&self) -> impl Iterator<Item = &'static str> {
        idle::idle(self).into_iter().map(|(name, _)| name)
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
    /// Broker, as amqp://user:password@host:port/vhost; several, as of a cluster, get connections in turn
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/%2F", value_parser = UriParser)]
    pub uri: Vec<AmqpUri>,
    /// What is done
    #[arg(short = 'w', long, default_value = "messages", value_name = "KIND")]
    pub workload: Workload,
    /// Producers, each with a connection of its own; clients, under rpc; concurrent users, under churn
    #[arg(short = 'x', long, default_value_t = 1, value_name = "N")]
    pub producers: usize,
    /// Consumers, each with a connection of its own; servers, under rpc
    #[arg(short = 'y', long, default_value_t = 1, value_name = "N")]
    pub consumers: usize,
    /// Channels of each producer; each publishes on its own
    #[arg(short = 'X', long, default_value_t = 1, value_name = "N")]
    pub producer_channel_count: u16,
    /// Channels of each consumer; each consumes on its own
    #[arg(short = 'Y', long, default_value_t = 1, value_name = "N")]
    pub consumer_channel_count: u16,
    /// Queue; with --queues its name is the first part of theirs. What is there already is used, and never deleted
    #[arg(short = 'u', long, default_value = "lepus-perf", value_name = "NAME")]
    pub queue: String,
    /// Queues; each is read by one consumer, or by several where there are more consumers than queues
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub queues: usize,
    /// Argument of the queues, as x-max-length=1000; more than one may be given
    #[arg(long, value_name = "KEY=VALUE")]
    pub queue_arg: Vec<QueueArgument>,
    /// Queues and exchange survive the broker's restart
    #[arg(long)]
    pub durable: bool,
    /// Queues are deleted with their last consumer
    #[arg(long)]
    pub auto_delete: bool,
    /// Declare nothing, and delete nothing: queues, exchange and bindings are there
    #[arg(short = 'p', long)]
    pub predeclared: bool,
    /// Octets of a body: 16, uniform:16-1024, lognormal:MEDIAN,SIGMA, or sizes with weights: 16=90,4096=10. At least 6, for the
    /// sequence number, and 16 for latencies and checksums
    #[arg(short = 's', long, default_value = "16", value_name = "OCTETS")]
    pub size: Sizes,
    /// Messages a second of all producers together (PerfTest: of each). Open loop: latency counts from when a message
    /// should have been sent. Without it: as fast as the broker takes them
    #[arg(short = 'r', long, value_name = "MESSAGES")]
    pub rate: Option<f64>,
    /// How messages are spread within the rate: constant, poisson, or burst:MESSAGES
    #[arg(long, default_value = "constant", value_name = "PROCESS")]
    pub arrivals: Process,
    /// A rate that rises or falls evenly in the measured time, from one to another: 1000:50000
    #[arg(long, value_name = "FROM:TO", conflicts_with = "rate")]
    pub ramp: Option<Ramp>,
    /// Rates one after the other, as 1000@5s,1000-20000@10s,20000@5s; the time is theirs
    #[arg(long, value_name = "RATES", conflicts_with_all = ["rate", "ramp", "time"])]
    pub rate_profile: Option<Profile>,
    /// Replay a file: a line for each message with its time in seconds; then, divided by commas or blanks, if wanted its size
    /// and its routing key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "ramp", "rate_profile", "count"])]
    pub trace: Option<PathBuf>,
    /// What random times and sizes are drawn with
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Where 1 % of messages are sent so much too late, and not because of the broker, the run is marked as invalid
    #[arg(long, default_value_t = 1.0, value_name = "MILLISECONDS")]
    pub send_lag_limit: f64,
    /// Publisher confirms, with so many messages of each channel unconfirmed at most
    #[arg(short = 'c', long, value_name = "WINDOW")]
    pub confirm: Option<u64>,
    /// Transactions: commit after so many messages
    #[arg(short = 'm', long, value_name = "N", conflicts_with = "confirm")]
    pub tx_size: Option<u64>,
    /// Messages that each consumer may have unacknowledged; 0 means any number
    #[arg(short = 'q', long, default_value_t = 0, value_name = "N")]
    pub prefetch: u16,
    /// Acknowledge every N messages at once
    #[arg(short = 'A', long, default_value_t = 1, value_name = "N")]
    pub multi_ack_every: u64,
    /// Consume without acknowledgements
    #[arg(short = 'a', long = "auto-ack")]
    pub auto_ack: bool,
    /// Refuse this share of the messages instead of acknowledging them: 0.01
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub nack_share: f64,
    /// Refused messages go back to their queue, and come again
    #[arg(long)]
    pub requeue: bool,
    /// How long each consumer works at a message before it takes the next
    #[arg(long, value_name = "MICROSECONDS")]
    pub consumer_delay: Option<u64>,
    /// Messages a second that each consumer takes at most
    #[arg(short = 'R', long, value_name = "MESSAGES", conflicts_with = "consumer_delay")]
    pub consumer_rate: Option<f64>,
    /// Flags of messages. persistent: with durable queues and exchange
    #[arg(short = 'f', long = "flag", value_name = "FLAG")]
    pub flags: Vec<MessageFlag>,
    /// Exchange to publish to; where it was not there it is declared and afterwards deleted [default: the default exchange]
    #[arg(short = 'e', long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub exchange: String,
    /// Type of the exchange
    #[arg(short = 't', long = "type", default_value = "direct", value_name = "TYPE")]
    pub kind: ExchangeKind,
    /// Routing key of all messages, and of the bindings [default: the queue's name, or others for each binding]
    #[arg(short = 'k', long, value_name = "KEY", conflicts_with = "bindings")]
    pub routing_key: Option<String>,
    /// Bindings of a topic or headers exchange, a multiple of --queues: `k7.x.y`, `k7.*.y`, `k7.#`, `*.k7.#` in turn. The
    /// messages rotate, and each matches one binding [default: one for each queue]
    #[arg(long, value_name = "N")]
    pub bindings: Option<usize>,
    /// Under rpc: replies come to a queue of each client, not by direct reply-to
    #[arg(long)]
    pub reply_queue: bool,
    /// Under get: how long to wait before the next try where the queue was empty
    #[arg(long, default_value_t = 1000, value_name = "MICROSECONDS")]
    pub polling_interval: u64,
    /// Seconds to measure, after the warm-up; 0 means until Ctrl-C [default: 10, or as long as --count takes]
    #[arg(short = 'z', long = "time", value_name = "SECONDS")]
    pub time: Option<u64>,
    /// Seconds before that, which do not count [default: 2, or 0 with --count or --trace]
    #[arg(long, value_name = "SECONDS")]
    pub warmup: Option<u64>,
    /// Under backlog: before it is consumed, write back and drop this machine's page cache (as root), so that a broker that keeps
    /// messages on disk has to read them from there
    #[arg(long)]
    pub cold: bool,
    /// End after so many messages, or operations, of all producers together; without producers: of all consumers
    #[arg(long, value_name = "MESSAGES")]
    pub count: Option<u64>,
    /// Publish only while fewer messages than this were published and not yet received; 1000 if not given where messages are got
    /// one by one (-w get). Under rpc: requests of each client under way, 1 if not given
    #[arg(long, value_name = "MESSAGES")]
    pub in_flight: Option<u64>,
    /// How long to wait in the end, at most, for messages that are still in queues; if some are left then the run has failed
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub drain_limit: u64,
    /// Threads of the load generator, where --cores is not given; one is enough for one core of any broker
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "cores")]
    pub threads: usize,
    /// Cores to run on, as 1 or 0,2-3: one thread on each
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// With --cores: look for work for so long before going to sleep. Waking up takes tens of microseconds, which send lags
    /// and receipts include; a core that hardly sleeps does not have them, but is busy [default: 300, or 0 where the
    /// broker may run on these cores]
    #[arg(long, value_name = "MICROSECONDS", requires = "cores")]
    pub spin: Option<u64>,
    /// Process of the broker, whose CPU time and memory are reported [default: whoever listens, where it is on this machine]
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// Leave queues and exchange, and what is in them, behind; without producers (-x 0) that is always so
    #[arg(long)]
    pub keep: bool,
}

impl RunArguments {
    /// Messages survive the broker's restart.
    pub fn is_persistent(&self) -> bool {
        self.flags.contains(&MessageFlag::Persistent)
    }

    /// So do queues and exchange.
    pub fn is_durable(&self) -> bool {
        self.durable || self.is_persistent()
    }

    /// How long to warm up.
    pub fn warmup(&self) -> Duration {
        let is_whole = self.count.is_some() || self.trace.is_some();
        Duration::from_secs(self.warmup.unwrap_or(if is_whole { 0 } else { 2 }))
    }

    /// How long to measure; `None` until a count is reached, a trace has ended, or Ctrl-C.
    pub fn time(&self) -> Option<Duration> {
        if let Some(profile) = &self.rate_profile {
            return Some(Duration::from_secs_f64(profile.seconds()));
        }
        match self.time {
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None if self.count.is_some() || self.trace.is_some() => None,
            None => Some(Duration::from_secs(10)),
        }
    }

    /// The wanted rate over time, warm-up included; `None` where the loop is closed, or a trace is played.
    pub fn profile(&self) -> Option<Profile> {
        let seconds = self.time().map_or(60.0, |time| time.as_secs_f64());
        let profile = match (self.rate, self.ramp, &self.rate_profile) {
            (Some(rate), _, _) => Profile::constant(rate),
            (_, Some(Ramp { from, to }), _) => Profile::ramp(from, to, seconds),
            (_, _, Some(profile)) => profile.clone(),
            _ => return None,
        };
        Some(profile.after_warm_up(self.warmup().as_secs_f64()))
    }

    /// The wanted rate, on average over the measured time; `None` where the loop is closed, or a trace is played.
    pub fn mean_rate(&self) -> Option<f64> {
        let ramp = self.ramp.map(|Ramp { from, to }| f64::midpoint(from, to));
        let profile = self.rate_profile.as_ref().map(|profile| profile.messages() / profile.seconds());
        self.rate.or(ramp).or(profile)
    }

    /// Whether messages have times at which they are to be sent.
    pub fn is_open_loop(&self) -> bool {
        self.rate.is_some() || self.ramp.is_some() || self.rate_profile.is_some() || self.trace.is_some()
    }

    /// Whether it is about requests and their replies: RPC, churn, and `basic.get` where messages have no times of their own.
    pub fn is_about_round_trips(&self) -> bool {
        match self.workload {
            Workload::Rpc => true,
            Workload::Get => !self.is_open_loop(),
            workload => workload.is_churn(),
        }
    }

    /// How many messages may be published and not yet received, where that is bounded.
    pub fn messages_in_flight_max(&self) -> Option<u64> {
        match self.workload {
            Workload::Rpc => None,
            // Publishing is so much faster that the rest would have to be awaited for minutes.
            Workload::Get if !self.is_open_loop() && self.consumers > 0 => {
                self.in_flight.or(Some(GET_IN_FLIGHT_DEFAULT))
            }
            _ => self.in_flight,
        }
    }

    /// How long a consumer works at a message.
    pub fn processing(&self) -> Option<Duration> {
        let delay = self.consumer_delay.map(Duration::from_micros);
        delay.or_else(|| self.consumer_rate.map(|rate| Duration::from_secs_f64(1.0 / rate)))
    }

    /// Channels that publish.
    pub fn sources(&self) -> usize {
        self.producers * usize::from(self.producer_channel_count)
    }

    /// Channels that consume.
    pub fn sinks(&self) -> usize {
        self.consumers * usize::from(self.consumer_channel_count)
    }

    fn check(&self) -> Result<(), String> {
        let bindings = self.bindings.unwrap_or(self.queues);
        let many = matches!(self.kind, ExchangeKind::Topic | ExchangeKind::Headers);
        let rpc = self.workload == Workload::Rpc;
        let is_positive = |number: f64| number > 0.0 && number.is_finite();
        let faults = [
            (self.producers == 0 && self.consumers == 0, "nothing to do: neither producers nor consumers"),
            (self.producer_channel_count == 0 || self.consumer_channel_count == 0, "at least 1 channel"),
            (self.sources() > PRODUCERS_MAX, "at most 65536 channels that publish"),
            (self.queues == 0, "--queues: at least 1"),
            (self.threads == 0, "--threads: at least 1"),
            (self.rate.is_some_and(|rate| !is_positive(rate)), "--rate: more than 0"),
            (
                self.profile().is_some_and(|profile| profile.messages() / profile.seconds() > RATE_MAX),
                "at most 100,000,000 messages a second",
            ),
            (self.count == Some(0), "--count: at least 1"),
            (self.consumer_rate.is_some_and(|rate| !is_positive(rate)), "--consumer-rate: more than 0"),
            (!is_positive(self.send_lag_limit), "--send-lag-limit: more than 0"),
            (self.is_open_loop() && self.in_flight.is_some(), "--in-flight would close the open loop of a rate"),
            (self.in_flight == Some(0), "--in-flight: at least 1"),
            (self.in_flight.is_some() && self.consumers == 0, "--in-flight needs consumers"),
            (self.confirm == Some(0), "--confirm: at least 1"),
            (self.tx_size == Some(0), "--tx-size: at least 1"),
            (self.multi_ack_every == 0, "--multi-ack-every: at least 1"),
            (
                self.prefetch > 0 && self.multi_ack_every > u64::from(self.prefetch) && !self.auto_ack,
                "--multi-ack-every beyond --prefetch would wait for ever",
            ),
            (!(0.0..=1.0).contains(&self.nack_share), "--nack-share: from 0 to 1"),
            (self.nack_share > 0.0 && self.auto_ack, "--nack-share contradicts --auto-ack"),
            (self.nack_share > 0.999 && self.requeue, "--nack-share of all with --requeue would never end"),
            (self.bindings.is_some() && !many, "--bindings is for -t topic and -t headers"),
            (self.kind != ExchangeKind::Direct && self.exchange.is_empty(), "-t needs an exchange: -e NAME"),
            (
                self.queues > 0 && (bindings == 0 || !bindings.is_multiple_of(self.queues)),
                "--bindings: a multiple of --queues",
            ),
            (
                self.routing_key.is_some() && self.exchange.is_empty() && !self.predeclared,
                "-k needs an exchange: -e NAME",
            ),
            (rpc && (self.producers == 0 || self.consumers == 0), "rpc needs clients (-x) and servers (-y)"),
            (rpc && (self.size.least() < STAMP_OCTETS), "rpc needs bodies of 16 octets at least"),
            (
                rpc && (!self.exchange.is_empty() || self.tx_size.is_some()),
                "rpc goes by the default exchange, without tx",
            ),
            (self.workload == Workload::Backlog && self.count.is_none(), "backlog needs --count"),
            (self.workload == Workload::Backlog && self.in_flight.is_some(), "backlog contradicts --in-flight"),
            (self.workload.is_churn() && self.producers == 0, "churn needs users (-x)"),
            (self.workload.is_churn() && self.is_open_loop(), "churn has no rate: it is a closed loop"),
            (self.exchange.len() > 255 || self.queue.len() > 240, "names have 255 octets at most"),
            (self.routing_key.as_ref().is_some_and(|key| key.len() > 255), "routing keys have 255 octets at most"),
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
        assert_eq!((options.producers, options.consumers, &options.size), (2, 3, &Sizes::Fixed(1000)));
        assert_eq!((options.uri[0].vhost.as_str(), options.queue.as_str()), ("v", "orders"));
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
        assert_eq!(
            (other.rate, other.auto_ack, other.producers, other.uri[0].host.as_str()),
            (Some(70.0), false, 2, "h")
        );
        assert_eq!(parse("--rate-profile 10@1,10-30@1").map(|options| options.mean_rate()), Ok(Some(15.0)));
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

    /// Goal: a password is in no text that is made for people, also where the URI is wrong.
    #[test]
    fn no_password_is_shown() {
        for uri in ["amqp://u:secret@h:x", "amqp://u:secret@[h", "amqp://u:secret@h?heartbeat=5", "u:secret@h"] {
            let fault = parse(&format!("--uri {uri}")).expect_err(uri);
            assert!(fault.contains("--uri") && !fault.contains("secret"), "{fault}");
        }
        assert!(!format!("{:?}", parse("--uri amqp://u:secret@h")).contains("secret"));
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
            "-f nothing",
            "-r 5 --ramp 1:2",
            "--ramp 1",
            "--nack-share 1 --requeue",
            "-w backlog",
            "-w rpc -y 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["-s 6", "-q 10 -A 10", "-e x -t topic --queues 2 --bindings 4", "-x 0", "-y 0"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
