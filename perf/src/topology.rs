//! Queues, exchange and bindings of a run; which messages are to come to which queue.

use lepus::protocol::method::{Method, exchange, queue};

use crate::batch::NO_ARGUMENTS;
use crate::client::{Client, ClientError};
use crate::options::{ExchangeKind, RunOptions};
use crate::sequence::Progression;

/// What a run declares and uses.
#[derive(Clone, Debug)]
pub struct Topology {
    /// All queues.
    pub queues: Vec<String>,
    /// A producer's n-th message has the n-th of these, and so on in turn.
    pub routing_keys: Vec<String>,
    /// Binding keys with the index of their queue.
    bindings: Vec<(String, usize)>,
    /// Queues that one message comes to.
    pub copies: u64,
}

impl Topology {
    /// What the options ask for.
    pub fn plan(options: &RunOptions) -> Self {
        let names =
            |index| if options.queues == 1 { options.queue.clone() } else { format!("{}-{index}", options.queue) };
        let queues: Vec<String> = (0..options.queues).map(names).collect();
        if options.exchange.is_empty() {
            return Self { routing_keys: queues.clone(), queues, bindings: Vec::new(), copies: 1 };
        }
        let (bindings, routing_keys, copies): (Vec<_>, Vec<_>, u64) = match options.kind {
            ExchangeKind::Direct => (queues.iter().cloned().zip(0..).collect(), queues.clone(), 1),
            ExchangeKind::Fanout => (
                (0..queues.len()).map(|index| (String::new(), index)).collect(),
                vec!["fanout".to_owned()],
                queues.len() as u64,
            ),
            ExchangeKind::Topic => {
                let pairs = (0..options.bindings.unwrap_or(queues.len())).map(topic_pair);
                let (patterns, keys): (Vec<_>, Vec<_>) = pairs.unzip();
                (patterns.into_iter().zip((0..queues.len()).cycle()).collect(), keys, 1)
            }
        };
        Self { queues, routing_keys, bindings, copies }
    }

    /// The sequence numbers of any producer that come to a queue.
    pub fn progression(&self, queue: usize) -> Progression {
        assert!(
            self.copies > 1 || self.routing_keys.len().is_multiple_of(self.queues.len()),
            "the keys go round unevenly"
        );
        if self.copies > 1 {
            return Progression { first: 0, stride: 1 };
        }
        Progression { first: queue as u64, stride: self.queues.len() as u64 }
    }

    /// The queues of a consumer: each queue in turn, while there are as many; else every consumer shares one.
    pub fn queues_of(&self, consumer: usize, consumers: usize) -> Vec<usize> {
        if consumers >= self.queues.len() {
            return vec![consumer % self.queues.len()];
        }
        (consumer..self.queues.len()).step_by(consumers).collect()
    }

    /// How many consumers read a queue.
    pub fn readers_of(&self, queue: usize, consumers: usize) -> usize {
        (0..consumers).filter(|&consumer| self.queues_of(consumer, consumers).contains(&queue)).count()
    }

    /// Declares and binds everything; returns how many messages were in the queues already.
    ///
    /// # Errors
    /// Where the broker refuses; for instance because a queue is there with other properties.
    pub fn declare(&self, client: &mut Client, options: &RunOptions) -> Result<u64, ClientError> {
        let mut message_count = 0;
        for name in &self.queues {
            let declare = queue::Declare {
                queue: name.as_bytes(),
                passive: false,
                durable: options.is_persistent(),
                exclusive: false,
                auto_delete: false,
                no_wait: false,
                arguments: NO_ARGUMENTS,
            };
            message_count +=
                client.request(&Method::QueueDeclare(declare), "queue.declare-ok", |method| match method {
                    Method::QueueDeclareOk(ok) => Some(u64::from(ok.message_count)),
                    _ => None,
                })?;
        }
        if options.exchange.is_empty() {
            return Ok(message_count);
        }
        let exchange = options.exchange.as_bytes();
        let declare = exchange::Declare {
            exchange,
            kind: options.kind.name().as_bytes(),
            passive: false,
            durable: options.is_persistent(),
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: NO_ARGUMENTS,
        };
        client.request(&Method::ExchangeDeclare(declare), "exchange.declare-ok", |method| {
            matches!(method, Method::ExchangeDeclareOk(_)).then_some(())
        })?;
        for (key, index) in &self.bindings {
            let (queue, routing_key) = (self.queues[*index].as_bytes(), key.as_bytes());
            let bind = queue::Bind { queue, exchange, routing_key, no_wait: false, arguments: NO_ARGUMENTS };
            client.request(&Method::QueueBind(bind), "queue.bind-ok", |method| {
                matches!(method, Method::QueueBindOk(_)).then_some(())
            })?;
        }
        Ok(message_count)
    }

    /// Deletes what [`Topology::declare`] has made.
    pub fn delete(&self, client: &mut Client, options: &RunOptions) -> Result<(), ClientError> {
        for name in &self.queues {
            let delete = queue::Delete { queue: name.as_bytes(), if_unused: false, if_empty: false, no_wait: false };
            client.request(&Method::QueueDelete(delete), "queue.delete-ok", |method| {
                matches!(method, Method::QueueDeleteOk(_)).then_some(())
            })?;
        }
        if options.exchange.is_empty() {
            return Ok(());
        }
        let delete = exchange::Delete { exchange: options.exchange.as_bytes(), if_unused: false, no_wait: false };
        client.request(&Method::ExchangeDelete(delete), "exchange.delete-ok", |method| {
            matches!(method, Method::ExchangeDeleteOk(_)).then_some(())
        })
    }
}

/// A pattern, and a key that it alone matches.
fn topic_pair(index: usize) -> (String, String) {
    match index % 4 {
        0 => (format!("k{index}.x.y"), format!("k{index}.x.y")),
        1 => (format!("k{index}.*.y"), format!("k{index}.x.y")),
        2 => (format!("k{index}.#"), format!("k{index}.x.y")),
        _ => (format!("*.k{index}.#"), format!("z.k{index}.y")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Command, CommandLine};
    use clap::Parser;

    fn plan(line: &str) -> Topology {
        match CommandLine::parse_from(["lepus-perf", "run"].into_iter().chain(line.split_whitespace())).command {
            Command::Run(options) => Topology::plan(&options),
            Command::Compare(_) | Command::Export(_) => unreachable!("'run' was given"),
        }
    }

    /// Goal: the progressions say which queue each message comes to.
    /// Method: for keys in turn, look the key's queue up in the bindings.
    #[test]
    fn progressions_follow_the_bindings() {
        for line in ["--queues 3 -e x", "--queues 3 -e x -t topic --bindings 12", "-e x -t topic --bindings 7"] {
            let topology = plan(line);
            for number in 0..100_u64 {
                let key = usize::try_from(number).expect("small") % topology.routing_keys.len();
                let queue = topology.bindings[key].1;
                for index in 0..topology.queues.len() {
                    let progression = topology.progression(index);
                    let comes = progression.count_below(number + 1) > progression.count_below(number);
                    assert_eq!(comes, index == queue, "{line}: message {number}, queue {index}");
                }
            }
        }
        let fanout = plan("--queues 5 -e x -t fanout");
        assert_eq!((fanout.copies, fanout.bindings.len()), (5, 5));
        assert_eq!(fanout.progression(4), Progression { first: 0, stride: 1 });
        assert_eq!(plan("--queues 2 -u q").routing_keys, ["q-0", "q-1"]);
    }

    /// Goal: every queue is read; where there are as many queues as consumers, by one of them.
    #[test]
    fn every_queue_has_its_readers() {
        for (queues, consumers) in [(1, 1), (5, 2), (2, 5), (3, 3)] {
            let topology = plan(&format!("--queues {queues}"));
            let readers: Vec<usize> = (0..queues).map(|queue| topology.readers_of(queue, consumers)).collect();
            assert!(readers.iter().all(|&count| count >= 1), "{queues} {consumers}");
            assert_eq!(readers.iter().sum::<usize>(), queues.max(consumers));
        }
    }
}
