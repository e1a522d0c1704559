//! One client's socket: the task that reads it, and the writes that the end of a turn makes.
//!
//! A driver. Reads go into one buffer of the shard; only what is left of it (a frame that has not arrived whole, or all that
//! came behind a method that has to wait) is kept for the connection.

#![allow(unsafe_code, reason = "glommio's stream lends its descriptor as a number only")]

use super::event_loop::EventLoop;
use crate::{connection::OutputBuffer, definitions::ConnectionId, limits::READ_OCTETS};
use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::{net::TcpStream, timer::Timer};
use rustix::{
    io::Errno,
    net::{SendAncillaryBuffer, SendFlags, send, sendmsg},
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// Reads that fill the buffer, one after the other, before a connection rests: glommio polls for I/O only when no task can
/// run, and a reader that always finds data would never stop.
pub const READS_MAX: u32 = 4;
/// Methods that had to wait for an answer, one after the other, before a connection rests.
const RESUMES_MAX: u32 = 64;
/// How long it rests then.
pub const REST: Duration = Duration::from_micros(20);
/// Slices in one vectored write.
const SLICES_MAX: usize = 64;
/// Capacity that a connection may keep for what is left of its input, in octets.
const KEPT_OCTETS_MAX: usize = 4096;

/// What became of a write.
pub(super) struct Written {
    pub octets: usize,
    /// The socket is full.
    pub is_stuck: bool,
    /// The peer is gone.
    pub is_broken: bool,
}

/// See the module's documentation.
pub(super) struct Socket {
    descriptor: RawFd,
    /// What is left of the input.
    input: Vec<u8>,
    /// Whether what is left is to be given to the shard again.
    is_resumed: bool,
    is_stuck: bool,
    /// Whether the connection is over.
    is_over: bool,
    waker: Option<Waker>,
}

impl Socket {
    pub fn new(stream: &TcpStream) -> Self {
        Self {
            descriptor: stream.as_raw_fd(),
            input: Vec::new(),
            is_resumed: false,
            is_stuck: false,
            is_over: false,
            waker: None,
        }
    }

    /// Writes as much as the socket takes.
    pub fn write(&mut self, output: &OutputBuffer) -> Written {
        // SAFETY: the stream that the descriptor belongs to lives in the connection's task, which removes this `Socket`
        // before it drops the stream.
        let descriptor = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let waiting = output.len();
        let mut written = Written { octets: 0, is_stuck: false, is_broken: false };
        if waiting > 0 && !self.is_over {
            let sent = match output.single() {
                Some(octets) => send(descriptor, octets, flags),
                None => sendmsg(descriptor, &output.slices(SLICES_MAX), &mut SendAncillaryBuffer::default(), flags),
            };
            match sent {
                Ok(octets) => written.octets = octets,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => {}
                Err(_) => written.is_broken = true,
            }
            written.is_stuck = written.octets < waiting && !written.is_broken;
        }
        if written.is_stuck && !self.is_stuck {
            self.wake();
        }
        self.is_stuck = written.is_stuck;
        written
    }

    /// What is left of the input is to be given to the shard again.
    pub fn resume(&mut self) {
        self.is_resumed = true;
        self.wake();
    }

    /// The connection is over.
    pub fn end(&mut self) {
        self.is_over = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn keep_waker(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }
}

/// The task of one connection: reads until it is over.
pub(super) async fn serve(event_loop: Rc<RefCell<EventLoop>>, mut stream: TcpStream, id: ConnectionId) {
    let mut rest: Option<Timer> = None;
    poll_fn(|context| poll_connection(&event_loop, &mut stream, id.slot, &mut rest, context)).await;
    event_loop.borrow_mut().disconnected(id.slot);
}

fn poll_connection(
    event_loop: &RefCell<EventLoop>,
    stream: &mut TcpStream,
    slot: u32,
    rest: &mut Option<Timer>,
    context: &mut Context<'_>,
) -> Poll<()> {
    let mut event_loop = event_loop.borrow_mut();
    event_loop.socket(slot).keep_waker(context);
    event_loop.begin_turn();
    if event_loop.write_stuck(stream, slot, context).is_err() || event_loop.socket(slot).is_over {
        return Poll::Ready(());
    }
    if let Some(timer) = rest
        && Pin::new(timer).poll(context).is_pending()
    {
        return Poll::Pending;
    }
    *rest = None;
    if std::mem::take(&mut event_loop.socket(slot).is_resumed) {
        event_loop.handle_input(slot, None);
    }
    let (mut full_reads, mut resumes) = (0, 0);
    loop {
        if event_loop.socket(slot).is_over {
            return Poll::Ready(());
        }
        if full_reads == READS_MAX || resumes == RESUMES_MAX {
            let mut timer = Timer::new(REST);
            let pending = Pin::new(&mut timer).poll(context).is_pending();
            *rest = Some(timer);
            if pending {
                return Poll::Pending;
            }
            (full_reads, resumes) = (0, 0);
        }
        if std::mem::take(&mut event_loop.socket(slot).is_resumed) {
            event_loop.handle_input(slot, None);
            resumes += 1;
            continue;
        }
        if !event_loop.shard.takes_input(slot) {
            return Poll::Pending;
        }
        let octets = match event_loop.read(stream, slot, context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Ready(Ok(octets)) => octets,
        };
        event_loop.handle_input(slot, Some(octets));
        if octets == READ_OCTETS {
            full_reads += 1;
        }
        event_loop.begin_turn();
    }
}

impl EventLoop {
    fn socket(&mut self, slot: u32) -> &mut Socket {
        self.sockets[slot as usize].as_mut().expect("a connection's task has its socket")
    }

    /// Writes to a socket that was full, as far as it takes it now. An error: the peer is gone.
    fn write_stuck(&mut self, stream: &mut TcpStream, slot: u32, context: &mut Context<'_>) -> Result<(), ()> {
        let mut wrote = false;
        while self.socket(slot).is_stuck {
            let Some(output) = self.shard.output(slot) else { break };
            match Pin::new(&mut *stream).poll_write(context, output.first()) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Err(()),
                Poll::Ready(Ok(octets)) => {
                    self.written(slot, octets);
                    wrote = true;
                }
            }
        }
        if wrote {
            self.end_turn();
        }
        Ok(())
    }

    /// Reads behind what is left of the input.
    fn read(&mut self, stream: &mut TcpStream, slot: u32, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let left = self.socket(slot).input.len();
        let room = &mut self.read_buffer[left..left + READ_OCTETS];
        Pin::new(stream).poll_read(context, room)
    }

    /// Gives the shard what is left of the input, with `octets` that were read behind it; keeps what it does not use.
    fn handle_input(&mut self, slot: u32, octets: Option<usize>) {
        self.take_rung();
        let Self { shard, sockets, read_buffer, .. } = self;
        let socket = sockets[slot as usize].as_mut().expect("a connection's task has its socket");
        let left = socket.input.len();
        read_buffer[..left].copy_from_slice(&socket.input);
        let whole = &read_buffer[..left + octets.unwrap_or(0)];
        let used = shard.handle_input(slot, whole);
        socket.input.clear();
        if used == whole.len() {
            if socket.input.capacity() > KEPT_OCTETS_MAX {
                socket.input = Vec::new();
            }
        } else {
            socket.input.extend_from_slice(&whole[used..]);
        }
        self.end_turn();
    }
}
