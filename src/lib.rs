//! Lepus, an AMQP 0-9-1 message broker for Linux. This is the map of the house; what it does for its users is in the README.
//!
//! # One value per core
//!
//! A [`Shard`](shard::Shard) is a plain value that owns everything of one core: connections, queues, routes that it remembers,
//! outboxes to the other shards. It takes events and the time, and leaves effects: octets to write, batches to send, questions
//! to ask. Around it stands a thin driver ([`shard::event_loop`]), a glommio executor on one thread.
//!
//! A turn: one socket was read, or batches came from other shards → every frame of it is handled → deliveries that have become
//! possible are made, confirms gathered → each other shard gets one batch → each connection with output is written to once.
//! (Much that came from other shards makes several turns of it.)
//!
//! # How a publish walks through the house
//!
//! 1. `shard/socket.rs` reads into the shard's one read buffer. `shard/input.rs` takes frames off it in place
//!    (`protocol/frame.rs`) and recognises the publish (`protocol/method.rs`). `shard/content_input.rs` finds its header
//!    (`protocol/properties.rs`) and body behind it, in the same buffer; only a message that does not lie there whole, or comes
//!    in several body frames, is gathered in its channel (`connection/channel.rs`).
//! 2. `shard/publish.rs`: the same exchange and key as the channel's last publish, under the same definitions? Then rights and
//!    route are known. Otherwise `shard/permission.rs` asks for the rights, and `shard/route_cache.rs` for the route, which it
//!    remembers or asks of `definitions/route.rs`, the matchers of which are in `routing/`. No hop: every shard has a snapshot
//!    of all that exists. What reaches no queue and is mandatory goes back from here, before its confirm.
//! 3. The queue's home is another shard: the message is copied into the batch for that (`shard/outbox.rs`,
//!    `shard/batch.rs`), which crosses in a ring at the end of the turn (`shard/mesh.rs`). There `shard/peer_mail.rs`
//!    takes it out. **The first hop.** A queue at home is called directly.
//! 4. `shard/deliver.rs` gives it to the queue. If nothing is ready before it and a consumer can take it
//!    (`queue/consumers.rs`), its delivery is encoded from where it lies, the read buffer or the batch, into the consumer's
//!    output (`connection/output.rs`), and the queue only keeps what awaits an acknowledgement (`queue/unacknowledged.rs`).
//!    Otherwise it is copied to the queue's tail (`queue/mod.rs`, `queue/blocks.rs`) until a consumer comes.
//! 5. The consumer is connected to another shard: into the batch for that. **The second hop**, and the last.
//! 6. At the end of the turn `shard/verdicts.rs` tells publishers what their queues have taken, many at once where it can;
//!    then `shard/event_loop.rs` sends the batches and writes to the sockets.
//! 7. The acknowledgement comes in by `shard/basic_methods.rs`, and goes by `shard/settle.rs` to the queue.
//!
//! # How a message survives
//!
//! 1. `shard/deliver.rs`, having given a persistent message to a durable queue, puts it into the shard's journal
//!    (`shard/persistence.rs`, `store/journal.rs`): a record in the batch that gathers. What was acknowledged, expired or dropped
//!    follows at the end of the turn (`queue/log.rs`).
//! 2. If no batch is on its way to the disk, this one is sent (`store/disk_thread.rs`: a write past the page cache and one
//!    `fdatasync`, on a thread of its own); whatever comes meanwhile gathers for the next. A shard that has nothing else to do stays
//!    awake for a moment until it is there (`shard/watch.rs`). Then the publishes in it count as taken (`shard/verdicts.rs`),
//!    wherever their publishers are.
//! 3. A long queue's blocks leave the memory for the queue's own segment files (`shard/paging.rs`, `queue/page_out.rs`) and come
//!    back before it is their turn (`queue/load.rs`). So whatever lives is in memory and in the journal, or in a file: the
//!    journal is never read while the broker runs.
//! 4. The oldest segment of the journal is used again once nothing lives there alone (`shard/recycling.rs`,
//!    `queue/relocation.rs`): much goes to files, little is written to the journal again.
//! 5. At start the journals are replayed (`store/replay.rs`) and the queues put together again (`queue/recovery.rs`,
//!    `server/recovery.rs`): that costs what the journals hold, not what the queues do.
//!
//! # How a declaration walks
//!
//! `shard/queue_methods.rs` and `shard/exchange_methods.rs` answer from the snapshot what changes nothing. A change is a question
//! (`shard/control_message.rs`) to the control plane, the only writer (`control/plane.rs`): it changes the registry
//! (`definitions/registry.rs`), commits what is durable (`control/database.rs`), tells the queue's home shard, publishes a new
//! snapshot, then answers. It is asked at once where nobody else is at it and nothing is to be kept, else through its thread: a
//! shard waits neither for its lock nor for the disk (`control/thread.rs`), and all that waits meanwhile shares one commit. Until
//! then no further frame of that connection is handled. So whoever acts because of an answer, on whatever connection and shard,
//! finds what was declared; and finds it after a restart (`definitions/restore.rs`), if it is durable.
//!
//! # Floors
//!
//! A module names modules on lower floors only. `tidy.rs` holds that, by test, and that only drivers know the executor,
//! that files stay short, and that `unsafe` stays where it is.
//!
//! | Floor | Module | Subject |
//! | --- | --- | --- |
//! | 0 | [`limits`], [`metrics`], [`short_octets`] | every bound with its unit; plain counters; quick copies of few octets |
//! | 1 | [`protocol`] | octets to values and back: frames, methods (from one table), field tables, properties, exceptions |
//! | 2 | [`message`], [`routing`] | one immutable message; direct, fanout, topic and headers matchers |
//! | 3 | [`store`] | what is on disk: journals, queue segment files, replay. Drivers (blocking threads): `disk_thread`, `files` |
//! | 3 | [`definitions`] | what exists: virtual hosts, users, permissions, exchanges, queues, bindings; routes through it |
//! | 4 | [`queue`] | one queue: ready, unacknowledged, consumers, expiry, overflow, priorities, dead letters |
//! | 5 | [`connection`] | one client's connection: phase, channels, confirms, output |
//! | 6 | [`shard`] | one core's broker. Drivers: `event_loop`, `mesh`, `socket` |
//! | 7 | [`control`] | the single writer of the definitions, and where they are kept. A driver |
//! | 8 | [`server`] | the process, and commands on what it has left (`offline`). Drivers: `listener`, `preflight`, `shards`, `shutdown`, `offline` |
//!
//! # What is not there
//!
//! What the design rests on is mostly what one does not find:
//!
//! * In and below [`shard::Shard`] there is no I/O but log lines, no clock, lock, atomic, thread, or task, save in drivers. The time is
//!   an argument, the disk a row of requests and answers. Hence `tests/simulator` steps whole brokers on one thread, from a seed.
//! * No task is spawned or woken for a message: a connection has one task, which reads; writing is a call at the end of the
//!   turn. A small message allocates nothing once the buffers that it passes have grown.
//! * No waiting for another shard. What does not fit into a ring stays in the outbox; what does not fit into the outbox's
//!   credit stops the *reading* of those who publish there. Two shards that are full of each other's messages go on.
//! * No unbounded buffer. Whatever a peer can make grow is bounded by [`limits`], by credit between shards, or by the memory
//!   limit (queues, which then stop publishers). A declared size reserves nothing. A connection has one question under way
//!   at most.
//! * No count of references per message, except for bodies from [`limits::SHARED_BODY_OCTETS_MIN`] on, which are not copied.
//! * No shared table. What exists is an immutable snapshot of persistent maps; a change costs the depth of a tree, however
//!   much exists, and readers never wait for it.
//! * No queue moves between shards, and whatever one channel publishes to one queue takes one way: that is why it stays in order.
//! * No assertion on what a peer has sent. A peer's mistake is a value ([`protocol::exception`]) and ends a channel or a
//!   connection. An assertion that fails is a mistake of ours and ends the process (`server/panic_hook.rs`): memory that
//!   contradicts itself is not to be served from.
//! * No `unsafe` but in `shard/socket.rs` (the descriptor of a stream) and `server/allocator.rs` (a call into the allocator).

pub mod connection;
pub mod control;
pub mod definitions;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod protocol;
pub mod queue;
pub mod routing;
pub mod server;
pub mod shard;
pub mod short_octets;
pub mod store;
#[cfg(test)]
mod tidy;
