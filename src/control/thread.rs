//! How shards reach the control plane: at once where nobody else is at it, else through its thread. A driver.
//!
//! There is one writer at a time: who holds the lock. A shard never waits for it: where the lock is taken, or the question
//! may take long, it goes to the thread. Asking a thread costs two wake-ups; doing it at once made declaring and deleting
//! queues one after the other on one connection several times faster.
//!
//! What is to be kept is committed by the thread, since that waits for the disk; all that is waiting then shares one commit.
//! Logins need the published definitions only, and wait for nobody: who wants to consume gets in even where the disk is full.

use super::{
    database::{Database, DatabaseError},
    logins::{Logins, Verification},
    plane::{ControlPlane, Outcome, SlowLogin},
};
use crate::{
    definitions::{Change, Name},
    shard::{
        control_message::{ControlAnswer, ControlMail, ControlRequest, Operation},
        event_loop::Published,
        mesh::{Mail, Mailbox},
        shard_message::Asker,
    },
    store::disk_thread::DISK_FAILED_EXIT_CODE,
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

/// How often each shard is woken from outside, should its executor have fallen asleep with work to do.
const POKE_INTERVAL: Duration = Duration::from_millis(100);
/// Requests that share one snapshot and one commit.
const BATCH_MAX: usize = 1024;

/// The control plane with all that it takes to carry out what it decides.
pub struct Control {
    writer: Mutex<Writer>,
    mailboxes: Vec<Mailbox>,
    published: Arc<Published>,
    logins: Mutex<Logins>,
    slow_logins: Sender<SlowLogin>,
}

/// Whoever holds it is the single writer.
struct Writer {
    plane: ControlPlane,
    /// `None` where nothing is kept.
    database: Option<Database>,
}

/// A question that waits for the thread, and how many of its shard do.
pub struct Queued {
    request: ControlRequest,
    waiting: Arc<AtomicUsize>,
}

/// Where one shard asks.
pub struct Desk {
    control: Arc<Control>,
    queue: Sender<Queued>,
    waiting: Arc<AtomicUsize>,
}

impl Desk {
    /// For one shard.
    pub fn new(control: Arc<Control>, queue: Sender<Queued>) -> Self {
        Self { control, queue, waiting: Arc::default() }
    }

    /// Asks. The answer is in the shard's mailbox when this returns, or comes there later. A shard's questions are answered
    /// in their order, logins apart.
    pub fn ask(&self, request: ControlRequest) {
        let request = match request {
            ControlRequest { from: Some(asker), operation: Operation::Authenticate { user, password } } => {
                return self.control.authenticate(asker, user, password);
            }
            other => other,
        };
        let request = if is_quick(&request) && self.waiting.load(Ordering::Acquire) == 0 {
            match self.control.try_handle(request) {
                None => return,
                Some(request) => request,
            }
        } else {
            request
        };
        self.waiting.fetch_add(1, Ordering::AcqRel);
        // The thread outlives the shards, except while the process ends.
        let _ = self.queue.send(Queued { request, waiting: Arc::clone(&self.waiting) });
    }
}

/// Whether it costs no more than what one message does, by order of magnitude. Exchanges go with all their bindings.
fn is_quick(request: &ControlRequest) -> bool {
    match &request.operation {
        Operation::Change(change) => !matches!(change, Change::DeleteExchange { .. } | Change::DeleteVhost { .. }),
        Operation::QueueClosed(..) | Operation::Authenticate { .. } => true,
    }
}

impl Control {
    /// Starts the thread that verifies slow password hashes and pokes the shards, and tells them what exists already. What is to
    /// be kept is kept in `database`.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub fn new(
        plane: ControlPlane,
        database: Option<Database>,
        existing: Outcome,
        mailboxes: Vec<Mailbox>,
        published: Arc<Published>,
    ) -> io::Result<Arc<Self>> {
        let (slow_logins, waiting_logins) = mpsc::channel();
        let writer = Mutex::new(Writer { plane, database });
        let control = Arc::new(Self { writer, mailboxes, published, logins: Mutex::default(), slow_logins });
        let verifying = Arc::downgrade(&control);
        std::thread::Builder::new()
            .name("logins".into())
            .spawn(move || verify_and_poke(&waiting_logins, || verifying.upgrade()))?;
        control.carry_out(existing, &mut control.lock());
        Ok(control)
    }

    /// Answers what is sent to its thread, until nobody can any more.
    pub fn run(&self, requests: &Receiver<Queued>) {
        while let Ok(first) = requests.recv() {
            let queued: Vec<Queued> = std::iter::once(first).chain(requests.try_iter().take(BATCH_MAX)).collect();
            self.handle_queued(queued);
        }
    }

    /// All that is waiting shares one snapshot and one commit.
    fn handle_queued(&self, queued: Vec<Queued>) {
        let mut writer = self.lock();
        let mut outcome = Outcome::default();
        let mut counters = Vec::with_capacity(queued.len());
        for Queued { request, waiting } in queued {
            writer.plane.handle(request, &mut outcome);
            counters.push(waiting);
        }
        self.carry_out(outcome, &mut writer);
        for waiting in counters {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Answers on the calling thread, unless somebody else is at it, or it may have to be kept; then gives the question back.
    fn try_handle(&self, request: ControlRequest) -> Option<ControlRequest> {
        let Ok(mut writer) = self.writer.try_lock() else { return Some(request) };
        if writer.database.is_some() && writer.plane.may_change_durable(&request) {
            return Some(request);
        }
        let mut outcome = Outcome::default();
        writer.plane.handle(request, &mut outcome);
        debug_assert!(writer.database.is_none() || outcome.durable.is_empty(), "a shard would wait for the disk");
        self.carry_out(outcome, &mut writer);
        None
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the shards, in the order that [`super::plane`] demands.
    fn carry_out(&self, outcome: Outcome, writer: &mut Writer) {
        if let Some(Err(error)) = writer.database.as_mut().map(|database| database.commit(&outcome.durable)) {
            end_without_disk(&error);
        }
        for queue in outcome.created {
            self.post(usize::from(queue.home.0), ControlMail::QueueCreated(queue));
        }
        for queue in outcome.dropped {
            self.post(usize::from(queue.home.0), ControlMail::QueueDropped(queue.id));
        }
        self.published.publish(writer.plane.snapshot());
        for (to, result) in outcome.answers {
            self.post(usize::from(to.connection.shard.0), ControlMail::Answer { to, result });
        }
        for login in outcome.logins {
            self.verify_later(login);
        }
    }

    /// Answers at once if the hash is quick, or known to be right; otherwise later.
    fn authenticate(&self, asker: Asker, user: Name, password: Box<[u8]>) {
        let definitions = self.published.load();
        // Where somebody is at what was remembered, nothing is: a shard does not wait.
        let remembered = self.logins.try_lock();
        let verification = match &remembered {
            Ok(logins) => logins.verify(&definitions, &user, &password),
            Err(_) => Logins::default().verify(&definitions, &user, &password),
        };
        drop(remembered);
        match verification {
            Verification::Done(is_right) => self.answer_login(asker, is_right),
            Verification::Slow(hash) => self.verify_later(SlowLogin { asker, user, password, hash }),
        }
    }

    fn verify_later(&self, login: SlowLogin) {
        // The thread is there as long as this is.
        let _ = self.slow_logins.send(login);
    }

    fn answer_login(&self, to: Asker, is_right: bool) {
        let result = Ok(ControlAnswer::Authenticated(is_right));
        self.post(usize::from(to.connection.shard.0), ControlMail::Answer { to, result });
    }

    fn post(&self, shard: usize, mail: ControlMail) {
        self.mailboxes[shard].post(Mail::Control(mail));
    }

    /// Verifies and answers; what was right is remembered, so that the next time is quick.
    fn verify(&self, login: SlowLogin) {
        let is_right = login.hash.verify(&login.password);
        self.answer_login(login.asker, is_right);
        if is_right {
            let mut logins = self.logins.lock().unwrap_or_else(PoisonError::into_inner);
            logins.remember(login.user, &login.password, login.hash);
        }
    }
}

/// What the second thread does, which never waits for the disk, until nobody needs it.
fn verify_and_poke(logins: &Receiver<SlowLogin>, control: impl Fn() -> Option<Arc<Control>>) {
    let mut poked = Instant::now();
    loop {
        let login = match logins.recv_timeout(POKE_INTERVAL) {
            Ok(login) => Some(login),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(control) = control() else { return };
        if let Some(login) = login {
            control.verify(login);
        }
        if poked.elapsed() >= POKE_INTERVAL {
            poked = Instant::now();
            control.mailboxes.iter().for_each(Mailbox::poke);
        }
    }
}

/// Ends the process: what is on disk is unknown, and nobody may be told otherwise. A broker that is started again reads what
/// is there.
fn end_without_disk(error: &DatabaseError) -> ! {
    eprintln!(
        "lepus: cannot keep what was declared in {error}; the broker ends, as it cannot know what is on the disk."
    );
    std::process::exit(DISK_FAILED_EXIT_CODE)
}
