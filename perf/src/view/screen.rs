//! Draws the live screen: rates with sparklines, latencies, the broker, what was before. Narrow and low terminals get less.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{LineGauge, Sparkline};

use super::state::{LatencyRow, State};
use super::time_text;
use crate::result::Recorded;
use crate::units::{count_text, duration_text, octets_text, rate_text};

/// Quantiles of the live view.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// Columns of a name, and of one latency.
const NAME_COLUMNS: usize = 13;
const VALUE_COLUMNS: usize = 9;
/// From this width on the overall latencies stand beside those of the last seconds.
const WIDE_COLUMNS: u16 = 88;
/// From this width on rates have a sparkline.
const SPARKLINE_COLUMNS: u16 = 40;

/// So many warnings are shown, the youngest ones; all of them stand on the terminal after the end.
const WARNINGS_MAX: usize = 3;

/// Styles; without colours, by weight alone.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    title: Style,
    label: Style,
    spark: Style,
    warm_up: Style,
    warning: Style,
}

impl Palette {
    /// With or without colours.
    pub fn new(is_coloured: bool) -> Self {
        let plain = Style::new();
        let (bold, dim) = (plain.add_modifier(Modifier::BOLD), plain.add_modifier(Modifier::DIM));
        if is_coloured {
            let (spark, warm_up) = (plain.fg(Color::Cyan), plain.fg(Color::Yellow));
            Self { title: bold, label: dim, spark, warm_up, warning: bold.fg(Color::Red) }
        } else {
            Self { title: bold, label: dim, spark: plain, warm_up: plain, warning: bold }
        }
    }
}

/// Draws all that fits, the most important first.
pub fn draw(frame: &mut Frame, state: &State, palette: Palette) {
    let mut page = Page { area: frame.area(), next: frame.area().y };
    let Some(plan) = &state.plan else {
        page.line(frame, Line::styled(" lepus-perf", palette.title));
        return;
    };
    page.line(frame, Line::styled(format!(" {}", plan.title()), palette.title));
    progress(&mut page, frame, state, palette);
    let (rates, latencies) = (state.rate_rows(), state.latency_rows());
    if rates.is_empty() {
        page.gap();
        page.line(frame, Line::raw(" connecting …"));
    }
    if page.has_room_for(rates.len() + latencies.len() + 4) {
        page.gap();
    }
    for row in &rates {
        let value = if row.name == "backlog" {
            count_text(row.history.last().copied().unwrap_or(0))
        } else {
            rate_text(row.last)
        };
        let unit = if row.name == "backlog" { "  " } else { "/s" };
        let line = Line::from(vec![
            Span::styled(format!(" {:<NAME_COLUMNS$}", row.name), palette.label),
            Span::raw(format!("{value:>11}{unit}")),
        ]);
        let used = u16::try_from(line.width() + 2).unwrap_or(u16::MAX);
        let Some(area) = page.line(frame, line) else { return };
        if area.width >= SPARKLINE_COLUMNS {
            let area = Rect { x: area.x + used, width: area.width - used, ..area };
            let from = row.history.len().saturating_sub(usize::from(area.width));
            frame.render_widget(
                Sparkline::default().data(row.history[from..].iter().copied()).style(palette.spark),
                area,
            );
        }
    }
    latency_table(&mut page, frame, &latencies, palette);
    broker(&mut page, frame, state, palette);
    warnings(&mut page, frame, state, palette);
    notes(&mut page, frame, state, palette);
    page.last_line(frame, Line::styled(" q or Ctrl-C: end with the report", palette.label));
}

fn progress(page: &mut Page, frame: &mut Frame, state: &State, palette: Palette) {
    let Some(plan) = &state.plan else { return };
    let end = plan.seconds.map(|seconds| plan.warm_up_seconds + seconds);
    let (phase, style) =
        if state.is_in_warm_up() { ("warm-up", palette.warm_up) } else { ("measuring", palette.spark) };
    let label = format!(" {phase:<9} {} of {}", time_text(Some(state.elapsed_seconds)), time_text(end));
    match state.progress() {
        Some(ratio) => {
            let Some(area) = page.line(frame, Line::default()) else { return };
            let gauge = LineGauge::default()
                .ratio(ratio)
                .label(label)
                .filled_symbol("█")
                .unfilled_symbol("░")
                .filled_style(style)
                .unfilled_style(palette.label);
            frame.render_widget(gauge, Rect { width: area.width.saturating_sub(1), ..area });
        }
        None => {
            page.line(frame, Line::styled(label, style));
        }
    }
}

fn latency_table(page: &mut Page, frame: &mut Frame, rows: &[LatencyRow], palette: Palette) {
    if rows.is_empty() {
        return;
    }
    if page.has_room_for(rows.len() + 4) {
        page.gap();
    }
    let is_wide = page.area.width >= WIDE_COLUMNS;
    let quantiles = quantiles_that_fit(page.area.width, is_wide);
    let names = in_columns(quantiles.iter().map(|(name, _)| (*name).to_owned()));
    let columns = VALUE_COLUMNS * quantiles.len();
    // Narrow terminals get one table below the other.
    let parts: &[(&str, bool)] = if is_wide { &[("", true)] } else { &[("last 5 s", true), ("overall", false)] };
    for &(part, is_recent) in parts {
        if is_wide {
            let head = format!(" {:<NAME_COLUMNS$}{:>columns$}{:>columns$}", "", "last 5 s", "measured");
            if page.has_room_for(rows.len() + 3) {
                page.line(frame, Line::styled(head, palette.label));
            }
            page.line(frame, Line::styled(format!(" {:<NAME_COLUMNS$}{names}{names}", "latency"), palette.label));
        } else {
            page.line(frame, Line::styled(format!(" {part:<NAME_COLUMNS$}{names}"), palette.label));
        }
        for row in rows {
            let name = Span::styled(format!(" {:<NAME_COLUMNS$}", row.name), palette.label);
            let (recent, overall) = (values(row.recent.as_ref(), &quantiles), values(row.overall.as_ref(), &quantiles));
            let values = match (is_wide, is_recent) {
                (true, _) => recent + &overall,
                (false, true) => recent,
                (false, false) => overall,
            };
            page.line(frame, Line::from(vec![name, Span::raw(values)]));
        }
    }
}

/// All where there is room; else without p99.9, then without p50: a value that is cut off would be a wrong one.
fn quantiles_that_fit(width: u16, is_wide: bool) -> Vec<(&'static str, f64)> {
    let room = usize::from(width).saturating_sub(NAME_COLUMNS + 1) / VALUE_COLUMNS;
    let left_out: &[&str] = match room {
        _ if is_wide => &[],
        0 => &["p50", "p99", "p99.9", "max"],
        1 => &["p50", "p99.9", "max"],
        2 => &["p50", "p99.9"],
        3 => &["p99.9"],
        _ => &[],
    };
    QUANTILES.into_iter().filter(|(name, _)| !left_out.contains(name)).collect()
}

fn values(recorded: Option<&Recorded>, quantiles: &[(&str, f64)]) -> String {
    let value = |quantile| {
        recorded.map_or_else(|| "-".to_owned(), |recorded| duration_text(recorded.0.value_at_quantile(quantile)))
    };
    in_columns(quantiles.iter().map(|(_, quantile)| value(*quantile)))
}

fn in_columns(values: impl Iterator<Item = String>) -> String {
    values.fold(String::new(), |text, value| text + &format!("{value:>VALUE_COLUMNS$}"))
}

fn broker(page: &mut Page, frame: &mut Frame, state: &State, palette: Palette) {
    let cpu = state.broker_cpu.map(|cpu| format!("CPU {:.0} %", 100.0 * cpu));
    let resident = state.broker_resident_octets.map(|octets| format!("memory {}", octets_text(octets)));
    let parts: Vec<String> = [cpu, resident].into_iter().flatten().collect();
    if parts.is_empty() {
        return;
    }
    if page.has_room_for(4) {
        page.gap();
    }
    let name = Span::styled(format!(" {:<NAME_COLUMNS$}", "broker"), palette.label);
    page.line(frame, Line::from(vec![name, Span::raw(format!("  {}", parts.join("   ")))]));
}

fn warnings(page: &mut Page, frame: &mut Frame, state: &State, palette: Palette) {
    for warning in state.warnings.iter().skip(state.warnings.len().saturating_sub(WARNINGS_MAX)) {
        page.line(frame, Line::styled(format!(" {warning}"), palette.warning));
    }
}

/// Of the earlier runs as many as fit, the youngest ones.
fn notes(page: &mut Page, frame: &mut Frame, state: &State, palette: Palette) {
    let room = page.room().saturating_sub(3);
    if state.notes.is_empty() || room == 0 {
        return;
    }
    page.gap();
    for note in state.notes.iter().skip(state.notes.len().saturating_sub(room)) {
        page.line(frame, Line::styled(format!(" {note}"), palette.label));
    }
}

/// The terminal, from top to bottom. The last line is kept for the keys.
struct Page {
    area: Rect,
    next: u16,
}

impl Page {
    /// Lines that are left.
    fn room(&self) -> usize {
        usize::from(self.area.bottom().saturating_sub(1).saturating_sub(self.next))
    }

    fn has_room_for(&self, lines: usize) -> bool {
        self.room() >= lines
    }

    fn gap(&mut self) {
        self.next = self.next.saturating_add(1);
    }

    /// The next line, and where it is; `None` where there is no room.
    fn line(&mut self, frame: &mut Frame, line: Line) -> Option<Rect> {
        if self.room() == 0 {
            return None;
        }
        let area = Rect { y: self.next, height: 1, ..self.area };
        self.next += 1;
        frame.render_widget(line, area);
        Some(area)
    }

    fn last_line(&self, frame: &mut Frame, line: Line) {
        if self.area.height > 1 {
            frame.render_widget(line, Rect { y: self.area.bottom() - 1, height: 1, ..self.area });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_runs::interval_of;
    use crate::view::Plan;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn state() -> State {
        let mut state = State::default();
        state.handle_note("throughput · lepus: 412,000/s".to_owned());
        state.handle_begin(Plan {
            scenario: "latency-1k".to_owned(),
            target: "lepus".to_owned(),
            rounds: 3,
            index: 4,
            of: 18,
            warm_up_seconds: 1.0,
            seconds: Some(4.0),
            ..Plan::default()
        });
        for second in 0..3 {
            let mut interval = interval_of(second, &[("response", &[123_000; 2000]), ("send-lag", &[900])]);
            interval.is_warm_up = second == 0;
            (interval.broker_cpu_seconds, interval.broker_resident_octets) = (Some(0.85), Some(123 << 20));
            state.handle_interval(&interval);
        }
        state.warnings.push("load and broker share cores".to_owned());
        state
    }

    fn drawn(state: &State, width: u16, height: u16, is_coloured: bool) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(frame, state, Palette::new(is_coloured))).expect("drawn");
        terminal
    }

    fn text(state: &State, width: u16, height: u16) -> String {
        let terminal = drawn(state, width, height, true);
        let cells = terminal.backend().buffer().content();
        let line =
            |cells: &[ratatui::buffer::Cell]| cells.iter().map(|cell| cell.symbol().to_owned()).collect::<String>();
        cells.chunks(usize::from(width)).map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
    }

    /// Goal: on a usual terminal everything is there.
    #[test]
    fn a_wide_terminal() {
        let text = text(&state(), 100, 30);
        for expected in [
            "latency-1k · lepus · round 1/3 · run 5/18",
            "measuring 0:03 of 0:05 ███",
            "published          2,000/s",
            "backlog",
            "last 5 s",
            "measured",
            "response        123 µs   123 µs   123 µs   123 µs   123 µs",
            "CPU 85 %   memory 123 MiB",
            "load and broker share cores",
            "throughput · lepus: 412,000/s",
            "q or Ctrl-C",
            "█",
        ] {
            assert!(text.contains(expected), "'{expected}' is not in:\n{text}");
        }
    }

    /// Goal: 80 columns have recent and overall latencies one below the other.
    #[test]
    fn eighty_columns() {
        let text = text(&state(), 80, 24);
        assert!(text.contains("last 5 s") && text.contains("overall"), "{text}");
        assert_eq!(text.matches("response  ").count(), 2, "{text}");
        assert!(text.contains("CPU 85 %") && text.contains("q or Ctrl-C"), "{text}");
    }

    /// Goal: on a narrow terminal fewer values are shown, and each of them whole.
    #[test]
    fn narrow_terminals() {
        for (width, names) in
            [(50, "p50      p99    p99.9      max"), (41, "p50      p99      max"), (32, "p99      max"), (23, "p99")]
        {
            let text = text(&state(), width, 24);
            let lines: Vec<&str> = text.lines().collect();
            let head = lines.iter().position(|line| line.contains("last 5 s")).expect("latencies");
            assert!(lines[head].ends_with(&format!(" {names}")), "{width}:\n{text}");
            let values = lines[head + 1].matches(" 123 µs").count();
            assert_eq!(values, names.split_whitespace().count(), "{width}:\n{text}");
        }
    }

    /// Goal: no size, however odd, is a panic, and the rates come first.
    #[test]
    fn all_sizes() {
        let state = state();
        for width in [1, 2, 5, 14, 27, 28, 39, 40, 41, 79, 87, 88, 300] {
            for height in 1..40 {
                let text = text(&state, width, height);
                if width >= 28 && height >= 7 {
                    assert!(text.contains("published          2,000/s"), "{width}x{height}:\n{text}");
                }
            }
        }
        text(&State::default(), 80, 24);
    }

    /// Goal: without colours there is none.
    #[test]
    fn no_colours() {
        let is_coloured = |is_wanted| {
            let terminal = drawn(&state(), 100, 30, is_wanted);
            let cells = terminal.backend().buffer().content();
            cells.iter().any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
        };
        assert!(is_coloured(true) && !is_coloured(false));
    }
}
