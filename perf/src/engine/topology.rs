//! Queues, exchange and bindings of a run; which messages are to come to which queue.

use lepus::protocol::field_table::TableRef;
use lepus::protocol::field_value::{FieldTable, FieldValue};
use lepus::protocol::method::{Method, exchange, queue};

use crate::engine::client::{Client, ClientError};
use crate::engine::sequence::Progression;
use crate::options::{ExchangeKind, RunOptions, Workload};

/// No arguments.
pub const NO_ARGUMENTS: TableRef<'static> = TableRef::EMPTY;

/// By what a message finds its queue.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// Routing key.
    pub key: String,
    /// Headers.
    pub headers: FieldTable,
}

/// What a run declares and uses.
#[derive(Clone, Debug)]
pub struct Topology {
    /// All queues.
    pub queues: Vec<String>,
    /// The first producer's n-th message has the n-th of these, and so on in turn; each further one begins with the next.
    pub routes: Vec<Route>,
    /// Binding keys and arguments with the index of their queue.
    bindings: Vec<(String, FieldTable, usize)>,
    /// Queues that one message comes to.
    pub copies: u64,
}

/// What a run has made, which it deletes in the end. What was there before, under the same name, is somebody else's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    queues: Vec<String>,
    exchange: Option<String>,
}

impl Topology {
    /// What the options ask for.
    pub fn plan(options: &RunOptions) -> Self {
        let names =
            |index| if options.queues == 1 { options.queue.clone() } else { format!("{}-{index}", options.queue) };
        let queues: Vec<String> = (0..options.queues).map(names).collect();
        let by_key = |key: &String| Route { key: key.clone(), headers: FieldTable::new() };
        if options.exchange.is_empty() {
            let keys = options.routing_key.as_ref().map_or(&queues[..], std::slice::from_ref);
            return Self { routes: keys.iter().map(by_key).collect(), queues, bindings: Vec::new(), copies: 1 };
        }
        let all = 0..queues.len();
        let one_key = options.routing_key.clone();
        let shared = |key: &str| {
            let bindings = all.clone().map(|index| (key.to_owned(), FieldTable::new(), index)).collect();
            (bindings, vec![by_key(&key.to_owned())], queues.len() as u64)
        };
        let count = options.bindings.unwrap_or(queues.len());
        let (bindings, routes, copies): (Vec<_>, Vec<_>, u64) = match (options.kind, one_key) {
            (ExchangeKind::Fanout, key) => shared(key.as_deref().unwrap_or("fanout")),
            (ExchangeKind::Direct | ExchangeKind::Topic, Some(key)) => shared(&key),
            (ExchangeKind::Direct, None) => (
                queues.iter().cloned().zip(0..).map(|(key, index)| (key, FieldTable::new(), index)).collect(),
                queues.iter().map(by_key).collect(),
                1,
            ),
            (ExchangeKind::Topic, None) => {
                let (patterns, keys): (Vec<_>, Vec<_>) = (0..count).map(topic_pair).unzip();
                let bind = |(pattern, index)| (pattern, FieldTable::new(), index);
                let bindings = patterns.into_iter().zip(all.cycle()).map(bind).collect();
                (bindings, keys.iter().map(by_key).collect(), 1)
            }
            (ExchangeKind::Headers, key) => {
                let key = key.unwrap_or_default();
                let bind = |number: usize| (key.clone(), headers(number, true), number % queues.len());
                let route = |number| Route { key: key.clone(), headers: headers(number, false) };
                ((0..count).map(bind).collect(), (0..count).map(route).collect(), 1)
            }
        };
        Self { queues, routes, bindings, copies }
    }

    /// The sequence numbers of the first producer that come to a queue; [`Progression::of_producer`] has the others'.
    pub fn progression(&self, queue: usize) -> Progression {
        if self.copies > 1 || self.routes.len() == 1 {
            return Progression::EACH;
        }
        assert!(self.routes.len().is_multiple_of(self.queues.len()), "the keys go round unevenly");
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
        let queues = self.queues.len();
        if consumers >= queues { consumers / queues + usize::from(queue < consumers % queues) } else { 1 }
    }

    /// Declares and binds everything; returns how many messages were in the queues already. `made` gets what was not there
    /// before, also where it fails; nothing where there are no producers: then others publish, and what they have published is
    /// theirs.
    ///
    /// # Errors
    /// Where the broker refuses; for instance because a queue is there with other properties.
    pub async fn declare(
        &self,
        client: &mut Client,
        options: &RunOptions,
        made: &mut Made,
    ) -> Result<u64, ClientError> {
        if options.workload.is_churn() && options.workload != Workload::BindingChurn {
            return Ok(0);
        }
        let mut message_count = 0;
        let mut arguments = FieldTable::new();
        for argument in &options.queue_arg {
            arguments.insert(&argument.name, argument.value.clone());
        }
        let arguments = arguments.to_octets();
        for name in &self.queues {
            let declare = queue::Declare {
                queue: name.as_bytes(),
                passive: options.predeclared,
                durable: options.is_durable(),
                exclusive: false,
                auto_delete: options.auto_delete,
                no_wait: false,
                arguments: TableRef::new(&arguments).map_err(|fault| ClientError::Malformed(fault.into()))?,
            };
            let passive = queue::Declare { passive: true, ..declare };
            let is_new = !options.predeclared && !client.is_there(&Method::QueueDeclare(passive)).await?;
            message_count += client
                .request(&Method::QueueDeclare(declare), "queue.declare-ok", |method| match method {
                    Method::QueueDeclareOk(ok) => Some(u64::from(ok.message_count)),
                    _ => None,
                })
                .await?;
            if is_new {
                made.queues.push(name.clone());
            }
        }
        if !options.exchange.is_empty() && !options.predeclared {
            self.declare_exchange(client, options, made).await?;
        }
        if options.producers == 0 {
            *made = Made::default();
        }
        Ok(message_count)
    }

    async fn declare_exchange(
        &self,
        client: &mut Client,
        options: &RunOptions,
        made: &mut Made,
    ) -> Result<(), ClientError> {
        let exchange = options.exchange.as_bytes();
        let declare = exchange::Declare {
            exchange,
            kind: options.kind.name().as_bytes(),
            passive: false,
            durable: options.is_durable(),
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: NO_ARGUMENTS,
        };
        // The predefined ones cannot be declared by others' rules, only found.
        let declare = exchange::Declare { passive: options.exchange.starts_with("amq."), ..declare };
        let passive = exchange::Declare { passive: true, ..declare };
        let is_new = !declare.passive && !client.is_there(&Method::ExchangeDeclare(passive)).await?;
        client
            .request(&Method::ExchangeDeclare(declare), "exchange.declare-ok", |method| {
                matches!(method, Method::ExchangeDeclareOk(_)).then_some(())
            })
            .await?;
        if is_new {
            made.exchange = Some(options.exchange.clone());
        }
        for (key, arguments, index) in &self.bindings {
            let (queue, routing_key, arguments) =
                (self.queues[*index].as_bytes(), key.as_bytes(), arguments.to_octets());
            let arguments = TableRef::new(&arguments).map_err(|fault| ClientError::Malformed(fault.into()))?;
            let bind = queue::Bind { queue, exchange, routing_key, no_wait: false, arguments };
            client
                .request(&Method::QueueBind(bind), "queue.bind-ok", |method| {
                    matches!(method, Method::QueueBindOk(_)).then_some(())
                })
                .await?;
        }
        Ok(())
    }
}

impl Made {
    /// Deletes it.
    pub async fn delete(&self, client: &mut Client) -> Result<(), ClientError> {
        for name in &self.queues {
            let delete = queue::Delete { queue: name.as_bytes(), if_unused: false, if_empty: false, no_wait: false };
            client
                .request(&Method::QueueDelete(delete), "queue.delete-ok", |method| {
                    matches!(method, Method::QueueDeleteOk(_)).then_some(())
                })
                .await?;
        }
        let Some(name) = &self.exchange else { return Ok(()) };
        let delete = exchange::Delete { exchange: name.as_bytes(), if_unused: false, no_wait: false };
        client
            .request(&Method::ExchangeDelete(delete), "exchange.delete-ok", |method| {
                matches!(method, Method::ExchangeDeleteOk(_)).then_some(())
            })
            .await
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

/// The headers of one binding, or of a message that it alone matches.
fn headers(number: usize, is_binding: bool) -> FieldTable {
    let mut table = FieldTable::new();
    if is_binding {
        table.insert("x-match", FieldValue::from("all"));
    }
    table.insert("kind", FieldValue::from("perf"));
    table.insert("number", FieldValue::I64(i64::try_from(number).unwrap_or(i64::MAX)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Topology {
        Topology::plan(&RunOptions::try_parse_from(line.split_whitespace()).expect("well-formed"))
    }

    /// Goal: the progressions say which queue each message comes to.
    /// Method: for keys in turn, look the key's queue up in the bindings.
    #[test]
    fn progressions_follow_the_bindings() {
        for line in [
            "--queues 3 -e x",
            "--queues 3 -e x -t topic --bindings 12",
            "-e x -t topic --bindings 7",
            "-e x -t headers --bindings 8 --queues 4",
        ] {
            let topology = plan(line);
            for number in 0..100_u64 {
                let key = usize::try_from(number).expect("small") % topology.routes.len();
                for (producer, index) in
                    (0..20).flat_map(|one| (0..topology.queues.len()).map(move |queue| (one, queue)))
                {
                    let queue = topology.bindings[(key + producer) % topology.routes.len()].2;
                    let progression = topology.progression(index).of_producer(producer);
                    let comes = progression.count_in(number..number + 1) > 0;
                    assert_eq!(comes, index == queue, "{line}: producer {producer}, message {number}, queue {index}");
                }
            }
        }
        for line in ["--queues 5 -e x -t fanout", "--queues 5 -e x -k all", "--queues 5 -e x -t topic -k a.b"] {
            let topology = plan(line);
            assert_eq!((topology.copies, topology.bindings.len(), topology.routes.len()), (5, 5, 1), "{line}");
            assert_eq!(topology.progression(4), Progression::EACH);
        }
        let keys: Vec<String> = plan("--queues 2 -u q").routes.into_iter().map(|route| route.key).collect();
        assert_eq!(keys, ["q-0", "q-1"]);
    }

    /// Goal: every queue is read; where there are as many queues as consumers, by one of them.
    #[test]
    fn every_queue_has_its_readers() {
        for (queues, consumers) in [(1, 1), (5, 2), (2, 5), (3, 3)] {
            let topology = plan(&format!("--queues {queues}"));
            for queue in 0..queues {
                let reads = |consumer: &usize| topology.queues_of(*consumer, consumers).contains(&queue);
                let count = (0..consumers).filter(reads).count();
                assert_eq!(topology.readers_of(queue, consumers), count, "{queues} {consumers}");
                assert!(count >= 1);
            }
        }
    }
}
