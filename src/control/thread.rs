//! The control plane's thread, and the one that verifies slow password hashes. A driver.

use super::plane::{ControlPlane, Outcome, SlowLogin};
use crate::shard::{
    control_message::{ControlAnswer, ControlMail, ControlRequest},
    event_loop::Published,
    mesh::{Mail, Mailbox},
};
use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    time::{Duration, Instant},
};

/// How often each shard is woken from outside, should its executor have fallen asleep with work to do.
const POKE_INTERVAL: Duration = Duration::from_millis(100);
/// Requests that share one snapshot.
const BATCH_MAX: usize = 1024;

/// Runs the control plane until nobody can ask it any more.
pub fn run(
    mut plane: ControlPlane,
    requests: &Receiver<ControlRequest>,
    mailboxes: &[Mailbox],
    published: &Arc<Published>,
) {
    let (login_sender, login_receiver) = mpsc::channel();
    let (verdict_sender, verdicts) = mpsc::channel();
    let spawned = std::thread::Builder::new().name("logins".into()).spawn({
        let mailboxes = mailboxes.to_vec();
        move || verify_logins(&login_receiver, &verdict_sender, &mailboxes)
    });
    if let Err(error) = spawned {
        tracing::error!("logins of users with argon2 hashes will be refused: no thread for them: {error}");
    }
    let mut poked = Instant::now();
    loop {
        let mut outcome = Outcome::default();
        match requests.recv_timeout(POKE_INTERVAL) {
            Ok(request) => plane.handle(request, &mut outcome),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for request in requests.try_iter().take(BATCH_MAX) {
            plane.handle(request, &mut outcome);
        }
        for login in verdicts.try_iter() {
            plane.remember_login(login);
        }
        carry_out(outcome, &mut plane, mailboxes, published, &login_sender);
        if poked.elapsed() >= POKE_INTERVAL {
            poked = Instant::now();
            mailboxes.iter().for_each(Mailbox::poke);
        }
    }
}

/// Tells the shards, in the order that [`super::plane`] demands.
pub fn carry_out(
    outcome: Outcome,
    plane: &mut ControlPlane,
    mailboxes: &[Mailbox],
    published: &Arc<Published>,
    logins: &Sender<SlowLogin>,
) {
    for queue in outcome.created {
        mailboxes[usize::from(queue.home.0)].post(Mail::Control(ControlMail::QueueCreated(queue)));
    }
    for queue in outcome.dropped {
        mailboxes[usize::from(queue.home.0)].post(Mail::Control(ControlMail::QueueDropped(queue.id)));
    }
    published.publish(plane.snapshot());
    for (to, result) in outcome.answers {
        let shard = usize::from(to.connection.shard.0);
        mailboxes[shard].post(Mail::Control(ControlMail::Answer { to, result }));
    }
    for login in outcome.logins {
        // Without the thread nobody is let in.
        let _ = logins.send(login);
    }
}

/// Verifies and answers; what was right is told to the control plane, so that it need not be asked again.
fn verify_logins(logins: &Receiver<SlowLogin>, right: &Sender<SlowLogin>, mailboxes: &[Mailbox]) {
    for login in logins {
        let is_right = login.hash.verify(&login.password);
        let to = login.asker;
        let result = Ok(ControlAnswer::Authenticated(is_right));
        mailboxes[usize::from(to.connection.shard.0)].post(Mail::Control(ControlMail::Answer { to, result }));
        if is_right && right.send(login).is_err() {
            return;
        }
    }
}
