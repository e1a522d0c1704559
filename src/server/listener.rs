//! The listening socket and the thread that accepts connections from it (a driver).
//!
//! It knows nothing of the protocol: accepted sockets are handed on, blocking and with `TCP_NODELAY`.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use tracing::{debug, info, warn};

use crate::server::start_error::StartError;

/// Connections that may wait to be accepted. The kernel may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// How long to leave waiting connections alone when the machine has no descriptor or memory for another.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(50);

/// Asks a [`Listener`] to stop, from any thread.
#[derive(Debug)]
pub struct Stop {
    is_raised: AtomicBool,
    wake: OwnedFd,
}

impl Stop {
    /// Not yet raised.
    ///
    /// # Errors
    /// Where there is no file descriptor left.
    pub fn new() -> io::Result<Stop> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stop { is_raised: AtomicBool::new(false), wake })
    }

    /// Stops the listener, at once and for good.
    pub fn raise(&self) {
        self.is_raised.store(true, Ordering::Release);
        // It can fail only by being full, and then it wakes all the same.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Acquire)
    }
}

/// A bound socket that listens. Connections queue up from the moment it is bound.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    exhausted_count: Arc<AtomicU64>,
}

impl Listener {
    /// Listens on `address`; port 0 takes any free one.
    ///
    /// The address may be reused at once after a restart (`SO_REUSEADDR`) but not shared (no `SO_REUSEPORT`): a second
    /// broker on the same port is refused instead of silently getting half of the connections.
    pub fn bind(address: SocketAddr) -> Result<Listener, StartError> {
        let listen = || {
            let socket = TcpListener::bind(address)?;
            // The standard library listens with a short backlog; listening again only changes that.
            rustix::net::listen(&socket, BACKLOG)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Listener { socket, address, exhausted_count: Arc::default() })
        };
        listen().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::PortInUse { address },
            io::ErrorKind::PermissionDenied => StartError::PortForbidden { address },
            io::ErrorKind::AddrNotAvailable => StartError::AddressNotHere { address },
            _ => StartError::Listen { address, source },
        })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often the machine ran out of descriptors or memory for another connection; one for each episode.
    pub fn exhausted_count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.exhausted_count)
    }

    /// Accepts connections and hands them to `place`, which must not block, until `stop` is raised; then closes the
    /// socket.
    pub fn run(self, stop: &Stop, mut place: impl FnMut(TcpStream, SocketAddr)) {
        let mut is_exhausted = false;
        while !stop.is_raised() {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    if is_exhausted {
                        is_exhausted = false;
                        info!("connections are accepted again");
                    }
                    // It fails only where the peer has gone already.
                    match stream.set_nodelay(true) {
                        Ok(()) => place(stream, peer),
                        Err(error) => debug!(%peer, %error, "connection was lost while it was accepted"),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(stop, true, None),
                Err(error) if concerns_one_connection(&error) => {
                    debug!(%error, "connection was lost before it was accepted");
                }
                Err(error) => {
                    if !is_exhausted {
                        is_exhausted = true;
                        self.exhausted_count.fetch_add(1, Ordering::Relaxed);
                        warn!(%error, "cannot accept connections; new ones wait until others have closed");
                    }
                    self.wait(stop, false, Some(EXHAUSTED_WAIT));
                }
            }
        }
    }

    /// Sleeps until `stop` is raised, a connection waits (where that is `for_connections`) or `most` has passed.
    fn wait(&self, stop: &Stop, for_connections: bool, most: Option<Duration>) {
        let most = most.map(|most| Timespec::try_from(most).expect("a short time"));
        let mut watched =
            [PollFd::new(&stop.wake, PollFlags::IN), PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
        let watched = if for_connections { &mut watched[..] } else { &mut watched[..1] };
        match poll(watched, most.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // The kernel had no memory for it. Without the wait the thread would spin.
            Err(_) => std::thread::sleep(EXHAUSTED_WAIT),
        }
    }
}

/// Whether the error came with one connection, so that the next one may be accepted at once (accept(2), "Error handling").
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PERM
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
                | Errno::TIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::server::child_test::run_in_child;

    /// How long a test waits for what should come at once.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn bind() -> Listener {
        Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
    }

    /// Goal: a second broker on the port is refused with a sentence that names it. Method: listen twice.
    #[test]
    fn occupied_port_is_refused() {
        let first = bind();
        let refusal = Listener::bind(first.address()).expect_err("occupied").to_string();
        let expected = format!("port {} on 127.0.0.1 is already in use", first.address().port());
        assert!(refusal.starts_with(&expected), "{refusal}");
    }

    /// Goal: an address that the machine does not have is refused by name. Method: one that is kept for documentation.
    #[test]
    fn foreign_address_is_refused() {
        let refusal = Listener::bind(SocketAddr::from(([192, 0, 2, 1], 0))).expect_err("foreign");
        assert!(matches!(refusal, StartError::AddressNotHere { .. }), "{refusal:?}");
    }

    /// Goal: connections are handed on with `TCP_NODELAY`, and `stop` ends the thread and frees the port.
    /// Method: connect, stop while the thread waits for more, listen on the same port again.
    #[test]
    fn connections_are_placed_until_stopped() {
        let listener = bind();
        let address = listener.address();
        let stop = Stop::new().expect("stop");
        let (placed, accepted) = mpsc::channel();
        thread::scope(|scope| {
            let thread =
                scope.spawn(|| listener.run(&stop, move |stream, peer| placed.send((stream, peer)).expect("sent")));
            let client = TcpStream::connect(address).expect("connected");
            let placed = accepted.recv_timeout(PATIENCE);
            stop.raise();
            thread.join().expect("ended");
            let (stream, peer) = placed.expect("placed");
            assert_eq!(peer, client.local_addr().expect("address"));
            assert!(stream.nodelay().expect("option"));
        });
        Listener::bind(address).expect("free again");
    }

    /// Goal: without descriptors the listener backs off, tells it once, and takes the waiting connection when there are
    /// some again.
    /// Method: in a process of its own, since the limit is the whole process's: open files up to a low limit, wait for
    /// the episode, go through several more waits, close the files.
    #[test]
    fn recovers_when_descriptors_run_out() {
        run_in_child("server::listener::tests::recovers_when_descriptors_run_out", || {
            let listener = bind();
            let exhausted_count = listener.exhausted_count();
            let stop = Stop::new().expect("stop");
            let (placed, accepted) = mpsc::channel();
            let client = TcpStream::connect(listener.address()).expect("connected");

            let maximum = getrlimit(Resource::Nofile).maximum;
            setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum }).expect("lowered");
            let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            assert!(!files.is_empty());
            thread::scope(|scope| {
                scope.spawn(|| listener.run(&stop, |_, peer| placed.send(peer).expect("sent")));
                let deadline = Instant::now() + PATIENCE;
                while exhausted_count.load(Ordering::Relaxed) == 0 && Instant::now() < deadline {
                    thread::yield_now();
                }
                let meanwhile = accepted.recv_timeout(3 * EXHAUSTED_WAIT);
                drop(files);
                let afterwards = accepted.recv_timeout(PATIENCE);
                stop.raise();
                assert_eq!(meanwhile, Err(mpsc::RecvTimeoutError::Timeout), "accepted without a descriptor");
                assert_eq!(afterwards, Ok(client.local_addr().expect("address")));
                assert_eq!(exhausted_count.load(Ordering::Relaxed), 1, "one episode");
            });
        });
    }

    /// Goal: what a single peer can cause does not make the listener rest. Method: the errors on either side.
    #[test]
    fn errors_of_one_connection() {
        for errno in [Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN] {
            assert!(concerns_one_connection(&errno.into()), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!concerns_one_connection(&errno.into()), "{errno}");
        }
    }
}
