//! What the user sees while runs are made, on standard error: a live screen on a terminal, else a line a second.
//!
//! The screen has a thread of its own, which reads keys and draws once a second and after each key or resize; the runs
//! hand it copies and never wait for it.

mod lines;
pub mod options;
mod screen;
mod state;
mod terminal;

use std::io::{IsTerminal as _, Write as _};

pub use state::Plan;

use crate::final_table::is_no_color;
use crate::result::Interval;
use crate::units::clock_text;
use lines::Lines;
use terminal::LiveScreen;

/// How much is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// The live screen where standard error is a terminal, else lines.
    Screen,
    /// A line a second.
    Lines,
    /// Nothing but warnings.
    Quiet,
}

/// The view of one or more runs, one after the other. Dropping it gives the terminal back.
pub struct View {
    kind: Kind,
}

enum Kind {
    Screen(LiveScreen),
    Lines(Box<Lines>),
    Quiet,
}

impl View {
    /// Opens it. Where a screen is wanted and there is no terminal for it, lines do.
    pub fn open(detail: Detail) -> Self {
        let kind = match detail {
            Detail::Quiet => Kind::Quiet,
            Detail::Screen if terminal::is_usable() => {
                LiveScreen::open(!is_no_color()).map_or_else(|_| Kind::Lines(Box::default()), Kind::Screen)
            }
            Detail::Screen | Detail::Lines => Kind::Lines(Box::default()),
        };
        Self { kind }
    }

    /// A run begins.
    pub fn begin(&mut self, plan: Plan) {
        match &mut self.kind {
            Kind::Screen(screen) => screen.begin(plan),
            Kind::Lines(lines) => {
                if plan.of != 1 {
                    print(&plan.title());
                }
                lines.begin(plan);
            }
            Kind::Quiet => {}
        }
    }

    /// A second of it is over.
    pub fn observe(&mut self, interval: &Interval) {
        match &mut self.kind {
            Kind::Screen(screen) => screen.observe(interval),
            Kind::Lines(lines) => print(&lines.line(interval)),
            Kind::Quiet => {}
        }
    }

    /// A run is over, in one line.
    pub fn finish(&mut self, summary: &str) {
        match &mut self.kind {
            Kind::Screen(screen) => screen.note(summary),
            Kind::Lines(lines) if lines.is_one_of_many() => print(summary),
            Kind::Lines(_) | Kind::Quiet => {}
        }
    }

    /// What must be seen even by those who want to see nothing.
    pub fn warn(&mut self, sentence: &str) {
        match &mut self.kind {
            Kind::Screen(screen) => screen.warn(sentence),
            Kind::Lines(_) | Kind::Quiet => print(&format!("lepus-perf: {sentence}")),
        }
    }
}

/// Standard error may be closed, or a full disk; that is no reason to end a run.
fn print(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether standard error is a terminal.
pub fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// `1:23`, rounded to seconds, or what an unknown time is.
fn time_text(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "the end".to_owned(), clock_text)
}
