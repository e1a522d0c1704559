//! What publishers were told, against what is there.
//!
//! A message is known by its publisher and its number with that; its body says both, and its queue, and is checked octet by
//! octet. Restarts are counted: what comes back in a later round than it was published in was on disk.

use std::collections::BTreeMap;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was sent: it may be there or not.
    Sent,
    /// It must be there.
    Kept,
    /// Its acknowledgement was sent, in this round: it may come back in a later one.
    Settled(u32),
    /// It was looked for after a restart and not found: it must not come back.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    queue: u16,
    octets: u32,
    round: u32,
    state: State,
    /// A consumer has had it: from then on it says so.
    was_delivered: bool,
}

/// A message, as its body says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageId {
    pub publisher: usize,
    pub number: usize,
}

const HEAD_OCTETS: usize = 14;

/// See the module's documentation.
#[derive(Default)]
pub struct Ledger {
    publishers: Vec<Vec<Message>>,
    pub round: u32,
    /// Acknowledgements that were lost, in all.
    pub returned: u64,
    /// By queue: messages that may be there.
    backlogs: BTreeMap<u16, usize>,
}

/// What one consumer has seen of one queue since it began: numbers rise, publisher by publisher.
#[derive(Default)]
pub struct Seen {
    last: BTreeMap<usize, usize>,
    had_return: bool,
}

impl Seen {
    #[track_caller]
    fn note(&mut self, id: MessageId) {
        let last = self.last.insert(id.publisher, id.number);
        assert!(self.had_return || last.is_none_or(|last| last < id.number), "{id:?} came behind {last:?}");
    }

    /// What it had has gone back, perhaps behind what was on its way to it: there is no order from here on.
    pub fn note_return(&mut self) {
        self.had_return = true;
    }
}

impl Ledger {
    /// One more publisher; answers its number.
    pub fn add_publisher(&mut self) -> usize {
        self.publishers.push(vec![]);
        self.publishers.len() - 1
    }

    /// A publisher is about to send a message of at least so many octets: its body.
    pub fn send(&mut self, publisher: usize, queue: u16, octets: usize) -> Vec<u8> {
        let messages = &mut self.publishers[publisher];
        let octets = octets.max(HEAD_OCTETS);
        let id = MessageId { publisher, number: messages.len() };
        let size = u32::try_from(octets).expect("bodies are short");
        messages.push(Message { queue, octets: size, round: self.round, state: State::Sent, was_delivered: false });
        *self.backlogs.entry(queue).or_default() += 1;
        body(id, queue, octets)
    }

    /// These messages of a publisher, counted from 1, are confirmed.
    pub fn confirm(&mut self, publisher: usize, tags: &[u64]) {
        for tag in tags {
            let number = usize::try_from(tag - 1).expect("a test is short");
            let message = &mut self.publishers[publisher][number];
            if message.state == State::Sent {
                message.state = State::Kept;
            }
        }
    }

    /// A consumer of `queue` has got a message. Answers which it is.
    #[track_caller]
    pub fn deliver(&mut self, queue: u16, body: &[u8], redelivered: bool, seen: &mut Seen) -> MessageId {
        let id = self.look_at(queue, body);
        seen.note(id);
        let round = self.round;
        let message = self.message(id);
        assert!(
            redelivered || !message.was_delivered,
            "{id:?} was delivered before and does not say so: {message:?}, round {round}"
        );
        message.was_delivered = true;
        match message.state {
            State::Gone => panic!("{id:?} was gone and is back: {message:?}, round {round}"),
            State::Settled(at) => {
                assert!(at < round, "{id:?} was acknowledged and is back at once: {message:?}, round {round}");
                message.state = State::Kept;
                self.returned += 1;
                *self.backlogs.entry(queue).or_default() += 1;
            }
            State::Sent if message.round < round => message.state = State::Kept,
            State::Sent | State::Kept => {}
        }
        id
    }

    /// The acknowledgement of a message is about to be sent.
    pub fn settle(&mut self, id: MessageId) {
        let round = self.round;
        let message = self.message(id);
        message.state = State::Settled(round);
        let queue = message.queue;
        *self.backlogs.entry(queue).or_default() -= 1;
    }

    /// How many messages a queue may have that nobody has acknowledged.
    pub fn backlog(&self, queue: u16) -> usize {
        self.backlogs.get(&queue).copied().unwrap_or(0)
    }

    /// The whole of a queue was delivered after a restart, by consumers that have acknowledged nothing: whatever is not in
    /// `found` must not have been kept, and is gone.
    #[track_caller]
    pub fn reconcile(&mut self, queue: u16, found: &[MessageId]) {
        let mut is_found: Vec<Vec<bool>> = self.publishers.iter().map(|messages| vec![false; messages.len()]).collect();
        for id in found {
            is_found[id.publisher][id.number] = true;
        }
        for (publisher, messages) in self.publishers.iter_mut().enumerate() {
            for (number, message) in messages.iter_mut().enumerate().filter(|(_, message)| message.queue == queue) {
                if is_found[publisher][number] {
                    continue;
                }
                let id = MessageId { publisher, number };
                assert!(message.state != State::Kept, "{id:?} was confirmed and is lost: {message:?}");
                if message.state == State::Sent {
                    *self.backlogs.entry(queue).or_default() -= 1;
                }
                message.state = State::Gone;
            }
        }
    }

    /// How many messages a queue must have at least after a restart, and at most.
    pub fn bounds(&self, queue: u16) -> (u64, u64) {
        let all = self.publishers.iter().flatten().filter(|message| message.queue == queue);
        all.fold((0, 0), |(least, most), message| match message.state {
            State::Kept => (least + 1, most + 1),
            State::Sent | State::Settled(_) => (least, most + 1),
            State::Gone => (least, most),
        })
    }

    /// What was published in all.
    pub fn published(&self) -> usize {
        self.publishers.iter().map(Vec::len).sum()
    }

    fn message(&mut self, id: MessageId) -> &mut Message {
        &mut self.publishers[id.publisher][id.number]
    }

    /// Which message a body is, every octet of it.
    #[track_caller]
    fn look_at(&mut self, queue: u16, found: &[u8]) -> MessageId {
        assert!(found.len() >= HEAD_OCTETS, "a body of {} octets", found.len());
        let long = |at: usize| u32::from_le_bytes(found[at..at + 4].try_into().expect("four octets")) as usize;
        let id = MessageId { publisher: long(0), number: long(4) };
        let known = self.publishers.get(id.publisher).and_then(|messages| messages.get(id.number));
        let known = known.unwrap_or_else(|| panic!("{id:?} was never sent"));
        assert_eq!((known.queue, known.octets as usize), (queue, found.len()), "{id:?} is in the wrong place or cut");
        assert!(found == body(id, queue, found.len()), "{id:?} is not as it was sent");
        id
    }
}

fn body(id: MessageId, queue: u16, octets: usize) -> Vec<u8> {
    let long = |number: usize| u32::try_from(number).expect("a test is shorter").to_le_bytes();
    let mut body = [long(id.publisher), long(id.number), long(octets)].concat();
    body.extend(queue.to_le_bytes());
    let first = id.publisher.wrapping_mul(31).wrapping_add(id.number);
    // A different pattern for each message, and none that repeats with a page.
    body.extend((body.len()..octets).map(|at| (first.wrapping_add(at) % 251).to_le_bytes()[0]));
    body
}
