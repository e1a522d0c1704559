//! The terminal of the live screen: taken, drawn on by a thread of its own, and given back, however the process ends.

use std::io::{self, Stderr, stderr};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::print;
use super::screen::{Palette, draw};
use super::state::{Plan, State};
use crate::interrupt;
use crate::result::Interval;

/// How long a key or a message may wait; a moment of CPU time is spent as often.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Whether the terminal is ours now. A static, since a panic must find it.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether standard error is a terminal that this process may draw on: not one that it is in the background of, where
/// changing its mode would stop the process, and not one without any abilities.
pub fn is_usable() -> bool {
    let is_foreground =
        rustix::termios::tcgetpgrp(stderr()).is_ok_and(|foreground| foreground == rustix::process::getpgrp());
    super::is_terminal() && is_foreground && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

enum Message {
    Begin(Plan),
    Interval(Box<Interval>),
    Note(String),
    Warning(String),
}

/// The live screen.
pub struct LiveScreen {
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl LiveScreen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where it does not let itself be taken; it is then as it was.
    pub fn open(is_coloured: bool) -> io::Result<Self> {
        give_back_on_panic();
        let terminal = take().inspect_err(|_| give_back())?;
        let (messages, inbox) = channel();
        let palette = Palette::new(is_coloured);
        let thread = thread::Builder::new().name("view".to_owned()).spawn(move || show(terminal, palette, &inbox));
        let thread = thread.inspect_err(|_| give_back())?;
        Ok(Self { messages: Some(messages), thread: Some(thread) })
    }

    /// A run begins.
    pub fn begin(&self, plan: Plan) {
        self.send(Message::Begin(plan));
    }

    /// A second of it is over.
    pub fn observe(&self, interval: &Interval) {
        self.send(Message::Interval(Box::new(interval.clone())));
    }

    /// A run is over.
    pub fn note(&self, summary: &str) {
        self.send(Message::Note(summary.to_owned()));
    }

    /// Something should be known, also after the end.
    pub fn warn(&self, sentence: &str) {
        self.send(Message::Warning(sentence.to_owned()));
    }

    fn send(&self, message: Message) {
        if let Some(messages) = &self.messages {
            // The thread ends before its messages do only where the terminal is gone.
            let _ = messages.send(message);
        }
    }
}

impl Drop for LiveScreen {
    fn drop(&mut self) {
        self.messages = None;
        let warnings = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        give_back();
        warnings.iter().for_each(|sentence| print(&format!("lepus-perf: {sentence}")));
    }
}

fn take() -> io::Result<Terminal<CrosstermBackend<Stderr>>> {
    // From here on it is to be given back, even where only half of it could be taken.
    IS_TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stderr(), EnterAlternateScreen, Hide)?;
    let mut terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
    terminal.clear()?;
    Ok(terminal)
}

/// As it was before; nothing where it is not taken.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    }
}

fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            previous(panic);
        }));
    });
}

/// Draws until the messages end; returns the warnings, which are to be seen on the screen that stays.
fn show(mut terminal: Terminal<CrosstermBackend<Stderr>>, palette: Palette, inbox: &Receiver<Message>) -> Vec<String> {
    let (mut state, mut warnings, mut is_stale, mut has_keys) = (State::default(), Vec::new(), true, true);
    loop {
        loop {
            match inbox.try_recv() {
                Ok(message) => handle(&mut state, &mut warnings, message),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return warnings,
            }
            is_stale = true;
        }
        if interrupt::is_requested() && IS_TAKEN.load(Ordering::SeqCst) {
            // The terminal is given back at once, so that a second Ctrl-C ends the process as everywhere.
            give_back();
            print("lepus-perf: ending: what is under way is awaited; Ctrl-C again ends at once");
        }
        if !IS_TAKEN.load(Ordering::SeqCst) {
            thread::sleep(LOOK_UP);
            continue;
        }
        if is_stale {
            // A terminal that is gone is no reason to end the runs.
            let _ = terminal.draw(|frame| draw(frame, &state, palette));
            is_stale = false;
        }
        if !has_keys {
            thread::sleep(LOOK_UP);
            continue;
        }
        match event::poll(LOOK_UP).and_then(|is_there| if is_there { event::read().map(Some) } else { Ok(None) }) {
            Ok(Some(Event::Key(key))) if key.kind == KeyEventKind::Press => {
                handle_key(key.code, key.modifiers);
            }
            Ok(Some(Event::Resize(..))) => is_stale = true,
            Ok(_) => {}
            Err(_) => has_keys = false,
        }
    }
}

fn handle(state: &mut State, warnings: &mut Vec<String>, message: Message) {
    match message {
        Message::Begin(plan) => state.handle_begin(plan),
        Message::Interval(interval) => state.handle_interval(&interval),
        Message::Note(note) => state.handle_note(note),
        Message::Warning(sentence) => {
            state.warnings.push(sentence.clone());
            warnings.push(sentence);
        }
    }
}

/// In raw mode Ctrl-C is but a key: it, and `q`, become the signal that they are everywhere else.
fn handle_key(code: KeyCode, modifiers: KeyModifiers) {
    let is_end = match code {
        KeyCode::Char('q' | 'Q') => true,
        KeyCode::Char('c' | 'C') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    };
    if is_end {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::INT);
    }
}
