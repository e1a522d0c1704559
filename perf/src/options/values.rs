//! Values of options that are more than numbers and names.

use clap::ValueEnum;
use lepus::protocol::field_value::FieldValue;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Producers publish, consumers consume.
    Messages,
    /// Clients send requests and await replies, servers answer.
    Rpc,
    /// Consumers ask for each message by basic.get.
    Get,
    /// First --count messages are published, then they are consumed.
    Backlog,
    /// Connections are opened and closed, with a channel.
    ConnectionChurn,
    /// Channels are opened and closed.
    ChannelChurn,
    /// Queues are declared and deleted.
    QueueChurn,
    /// Bindings are made and removed.
    BindingChurn,
}

impl Workload {
    /// Whether operations are done instead of messages sent.
    pub fn is_churn(self) -> bool {
        matches!(self, Self::ConnectionChurn | Self::ChannelChurn | Self::QueueChurn | Self::BindingChurn)
    }
}

/// Two rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// At first.
    pub from: f64,
    /// In the end.
    pub to: f64,
}

impl std::str::FromStr for Ramp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rate = |text: &str| text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && rate.is_finite());
        let rates = text.split_once(':').and_then(|(from, to)| Some(Self { from: rate(from)?, to: rate(to)? }));
        rates.ok_or("two rates, such as 1000:50000")
    }
}

/// One argument of a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueArgument {
    /// Such as `x-queue-type`.
    pub name: String,
    /// Numbers and true, false as such; the rest as text.
    pub value: FieldValue,
}

impl std::str::FromStr for QueueArgument {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("KEY=VALUE")?;
        if name.is_empty() || name.len() > 255 {
            return Err("a key has 1 to 255 octets");
        }
        let value = match (value.parse::<i64>(), value) {
            (Ok(number), _) => FieldValue::I64(number),
            (_, "true" | "false") => FieldValue::Bool(value == "true"),
            _ => FieldValue::from(value),
        };
        Ok(Self { name: name.to_owned(), value })
    }
}

/// Flags of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessageFlag {
    /// Delivery mode 2.
    Persistent,
    /// What reaches no queue is returned, and counted.
    Mandatory,
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
    /// To the queue whose headers match.
    Headers,
}

impl ExchangeKind {
    /// As AMQP spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists() {
        assert_eq!("0,2-4,7".parse(), Ok(CoreList(vec![0, 2, 3, 4, 7])));
        for text in ["", "a", "1-", "2-1", "99999"] {
            assert!(text.parse::<CoreList>().is_err(), "{text}");
        }
    }

    #[test]
    fn queue_arguments() {
        let check = |text: &str, value| {
            let argument: QueueArgument = text.parse().expect(text);
            assert_eq!((argument.name.as_str(), argument.value), ("x", value));
        };
        check("x=5", FieldValue::I64(5));
        check("x=true", FieldValue::Bool(true));
        check("x=a=b", FieldValue::from("a=b"));
        assert!("x".parse::<QueueArgument>().is_err() && "=5".parse::<QueueArgument>().is_err());
    }
}
