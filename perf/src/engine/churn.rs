//! Users who open and close, declare and delete, as fast as the broker lets them.

use lepus::protocol::method::{Method, channel, queue};

use crate::engine::Context;
use crate::engine::client::{CHANNEL, Client, ClientError, Endpoint};
use crate::engine::clock::Schedule;
use crate::engine::topology::NO_ARGUMENTS;
use crate::options::Workload;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long to rest before looking again whether the run has begun.
const REST: Duration = Duration::from_millis(1);
/// The channel that is opened and closed.
const OTHER_CHANNEL: u16 = 2;

/// One user, from the first to the last operation.
pub async fn run(context: &Context, index: usize) {
    let shared = &context.shared;
    let endpoint = &shared.endpoints[index % shared.endpoints.len()];
    if let Err(error) = repeat(context, endpoint, index).await {
        shared.fail(format!("user {index} at {}", endpoint.sentence(&error)));
    }
    context.progress().sources_finished.fetch_add(1, Ordering::Relaxed);
}

async fn repeat(context: &Context, endpoint: &Endpoint, index: usize) -> Result<(), ClientError> {
    let shared = &context.shared;
    let (options, users) = (&shared.options, shared.options.producers as u64);
    let name = format!("lepus-perf user {index}");
    let mut client = match options.workload {
        Workload::ConnectionChurn => None,
        _ => Some(Client::open(endpoint, &name).await?),
    };
    let count_max = options.count.map_or(u64::MAX, |count| count / users + u64::from((index as u64) < count % users));
    let schedule: Schedule = loop {
        match shared.schedule.get() {
            Some(schedule) if shared.clock.nanos() >= schedule.start => break *schedule,
            _ if shared.is_over() || shared.has_failed() => return Ok(()),
            _ => glommio::timer::sleep(REST).await,
        }
    };
    let mut count = 0;
    while count < count_max && shared.clock.nanos() < schedule.end && !shared.is_producing_over() {
        match &mut client {
            None => {
                let since = shared.clock.nanos();
                let opened = Client::open(endpoint, &name).await?;
                record(context, since);
                opened.close().await?;
            }
            Some(client) => operate(context, client, index).await?,
        }
        let mut recorder = context.recorder.borrow_mut();
        recorder.counts.operations += 1;
        recorder.counted_at = shared.clock.nanos();
        drop(recorder);
        context.tell_progress();
        count += 1;
    }
    match client {
        Some(client) => client.close().await,
        None => Ok(()),
    }
}

fn record(context: &Context, since: u64) {
    let now = context.shared.clock.nanos();
    context.recorder.borrow_mut().round_trip(now - since);
}

/// One request, with its round trip.
async fn request(
    context: &Context,
    client: &mut Client,
    channel: u16,
    method: Method<'_>,
    answer: &'static str,
) -> Result<(), ClientError> {
    let since = context.shared.clock.nanos();
    client.send(channel, &method).await?;
    client.expect(answer, |method| (method.name() == answer).then_some(())).await?;
    record(context, since);
    Ok(())
}

/// Makes something and removes it.
async fn operate(context: &Context, client: &mut Client, index: usize) -> Result<(), ClientError> {
    let options = &context.shared.options;
    match options.workload {
        Workload::ChannelChurn => {
            let open = Method::ChannelOpen(channel::Open {});
            request(context, client, OTHER_CHANNEL, open, "channel.open-ok").await?;
            let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
            request(context, client, OTHER_CHANNEL, Method::ChannelClose(close), "channel.close-ok").await
        }
        Workload::QueueChurn => {
            let name = format!("{}-churn-{index}", options.queue);
            let queue = name.as_bytes();
            let declare = queue::Declare {
                queue,
                passive: false,
                durable: options.is_durable(),
                exclusive: false,
                auto_delete: options.auto_delete,
                no_wait: false,
                arguments: NO_ARGUMENTS,
            };
            request(context, client, CHANNEL, Method::QueueDeclare(declare), "queue.declare-ok").await?;
            let delete = queue::Delete { queue, if_unused: false, if_empty: false, no_wait: false };
            request(context, client, CHANNEL, Method::QueueDelete(delete), "queue.delete-ok").await
        }
        Workload::BindingChurn => {
            let topology = &context.shared.topology;
            let exchange = if options.exchange.is_empty() { "amq.direct" } else { &options.exchange };
            let key = format!("churn-{index}");
            let (queue, exchange, routing_key) =
                (topology.queues[index % topology.queues.len()].as_bytes(), exchange.as_bytes(), key.as_bytes());
            let bind = queue::Bind { queue, exchange, routing_key, no_wait: false, arguments: NO_ARGUMENTS };
            request(context, client, CHANNEL, Method::QueueBind(bind), "queue.bind-ok").await?;
            let unbind = queue::Unbind { queue, exchange, routing_key, arguments: NO_ARGUMENTS };
            request(context, client, CHANNEL, Method::QueueUnbind(unbind), "queue.unbind-ok").await
        }
        _ => {
            unreachable!("no other workload is churn")
        }
    }
}
