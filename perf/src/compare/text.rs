//! Tables as text: side by side where the terminal is wide enough, else one line for each value.

use std::fmt::Write as _;

use super::metric::Metric;
use super::table::{Table, Value};
use crate::result::histogram;
use crate::units::{number_in, ratio_text, unit_of};

const FITS: &str = "a string takes any text";

/// How the text is to look.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Characters in a line; `None`: any number.
    pub width: Option<usize>,
    /// Whether terminal colours may be used.
    pub has_colours: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Better,
    Worse,
}

impl Look {
    fn painted(self, text: &str, style: Style) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Better => "32",
            Style::Worse => "1;31",
            Style::Plain => return text.to_owned(),
        };
        if self.has_colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A value in the four parts that are aligned: value, interval, ratio, interval of the ratio.
struct Cell {
    parts: [String; 4],
    ratio_style: Style,
}

impl Cell {
    fn new(metric: &Metric, value: Option<&Value>) -> Self {
        let Some(value) = value else {
            return Self {
                parts: ["-".to_owned(), String::new(), String::new(), String::new()],
                ratio_style: Style::Plain,
            };
        };
        let (text, number): (String, Box<dyn Fn(f64) -> String>) = if metric.is_latency() {
            let unit = unit_of(value.value);
            let mark = if value.is_rare { "*" } else { "" };
            (
                format!("{} {}{mark}", number_in(value.value, unit), unit.0),
                Box::new(move |nanos| number_in(nanos, unit)),
            )
        } else {
            let metric = metric.clone();
            (metric.text(value.value), Box::new(move |value| metric.text(value)))
        };
        let range = |interval: Option<(f64, f64)>, number: &dyn Fn(f64) -> String| {
            interval.map_or_else(String::new, |(from, to)| format!("[{}–{}]", number(from), number(to)))
        };
        let ratio = value.ratio.map_or_else(String::new, |ratio| format!("{}×", ratio_text(ratio)));
        // Coloured only where the difference is more than chance.
        let (more, less) = if metric.is_cost() { (Style::Worse, Style::Better) } else { (Style::Better, Style::Worse) };
        let ratio_style = match value.ratio_interval {
            Some((from, _)) if from > 1.0 => more,
            Some((_, to)) if to < 1.0 => less,
            _ => Style::Plain,
        };
        let parts = [text, range(value.interval, &*number), ratio, range(value.ratio_interval, &ratio_text)];
        Self { parts, ratio_style }
    }

    fn style(&self, part: usize) -> Style {
        match part {
            0 => Style::Plain,
            2 => self.ratio_style,
            _ => Style::Dim,
        }
    }
}

/// The whole table with heading and notes.
pub fn table_text(table: &Table, look: Look) -> String {
    let mut text = String::new();
    let metrics = table.metrics();
    let rows: Vec<Vec<Cell>> = metrics
        .iter()
        .map(|metric| {
            (0..table.columns.len()).map(|column| Cell::new(metric, table.value(column, metric).as_ref())).collect()
        })
        .collect();
    push_heading(&mut text, table, look);
    let wide = side_by_side(table, &metrics, &rows, look);
    let width = wide.lines().map(visible_width).max().unwrap_or(0);
    if look.width.is_none_or(|most| width <= most) {
        text.push_str(&wide);
    } else {
        text.push_str(&one_below_the_other(table, &metrics, &rows, look));
    }
    let is_rare = |metric: &Metric| {
        (0..table.columns.len()).any(|column| table.value(column, metric).is_some_and(|value| value.is_rare))
    };
    if metrics.iter().any(is_rare) {
        push_wrapped(
            &mut text,
            "* rests on ten messages or fewer: another run may show something else",
            look,
            Style::Dim,
        );
    }
    for shown in &table.columns {
        for reason in &shown.invalid {
            push_wrapped(&mut text, &format!("INVALID {}: {reason}", shown.title), look, Style::Worse);
        }
        for reason in &shown.failures {
            push_wrapped(&mut text, &format!("FAILED {}: {reason}", shown.title), look, Style::Worse);
        }
    }
    table.notes.iter().for_each(|note| push_wrapped(&mut text, &format!("note: {note}"), look, Style::Plain));
    text
}

fn push_heading(text: &mut String, table: &Table, look: Look) {
    let meaning = |name: &str| histogram::ALL.iter().find(|(own, _)| *own == name).map(|(_, meaning)| *meaning);
    let what = match table.histogram.as_deref() {
        None => "rates".to_owned(),
        Some("") => "latency".to_owned(),
        Some(name) => meaning(name).map_or_else(|| name.to_owned(), |meaning| format!("{name} ({meaning})")),
    };
    let heading = if table.heading.is_empty() { what } else { format!("{}: {what}", table.heading) };
    push_wrapped(text, &heading, look, Style::Bold);
    text.push('\n');
}

fn name_of(metric: &Metric) -> String {
    format!("{}{}", metric.name(), metric.unit())
}

fn side_by_side(table: &Table, metrics: &[Metric], rows: &[Vec<Cell>], look: Look) -> String {
    let mut text = String::new();
    let names: Vec<String> = metrics.iter().map(name_of).collect();
    let first = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let part_width =
        |column: usize, part: usize| rows.iter().map(|row| row[column].parts[part].chars().count()).max().unwrap_or(0);
    let widths: Vec<Vec<usize>> = (0..table.columns.len())
        .map(|column| {
            let mut widths: Vec<usize> = (0..4).map(|part| part_width(column, part)).collect();
            let all = total_width(&widths);
            // A title that is longer than what is below it widens the last part.
            let title = table.columns[column].title.chars().count();
            widths[3] += title.saturating_sub(all);
            widths
        })
        .collect();
    write!(text, "{:first$}", "").expect(FITS);
    for (shown, widths) in table.columns.iter().zip(&widths) {
        let title = format!("{:<width$}", shown.title, width = total_width(widths));
        write!(text, "   {}", look.painted(&title, Style::Bold)).expect(FITS);
    }
    end_line(&mut text);
    for (name, row) in names.iter().zip(rows) {
        write!(text, "{name:first$}").expect(FITS);
        for (cell, widths) in row.iter().zip(&widths) {
            text.push_str("   ");
            push_parts(&mut text, cell, widths, look);
        }
        end_line(&mut text);
    }
    text
}

fn total_width(widths: &[usize]) -> usize {
    widths.iter().filter(|width| **width > 0).map(|width| width + 1).sum::<usize>().saturating_sub(1)
}

/// Values to the right, intervals to the left.
fn push_parts(text: &mut String, cell: &Cell, widths: &[usize], look: Look) {
    let mut is_first = true;
    for (part, (content, &width)) in cell.parts.iter().zip(widths).enumerate() {
        // Nothing is in it, or there is no room for it.
        if width == 0 {
            continue;
        }
        if !is_first {
            text.push(' ');
        }
        is_first = false;
        let padding = " ".repeat(width - content.chars().count());
        let painted = look.painted(content, cell.style(part));
        let (before, after) = if part % 2 == 0 { (padding.as_str(), "") } else { ("", padding.as_str()) };
        write!(text, "{before}{painted}{after}").expect(FITS);
    }
}

fn one_below_the_other(table: &Table, metrics: &[Metric], rows: &[Vec<Cell>], look: Look) -> String {
    let mut text = String::new();
    let names: Vec<String> = metrics.iter().map(name_of).collect();
    let first = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..4)
        .map(|part| rows.iter().flatten().map(|cell| cell.parts[part].chars().count()).max().unwrap_or(0))
        .collect();
    let longest = table.columns.iter().map(|shown| shown.title.chars().count()).max().unwrap_or(0);
    // Where there is too little room the intervals go first, that of the ratio before that of the value.
    for part in [3, 1] {
        if look.width.is_some_and(|width| first + 2 + longest.min(12) + 2 + total_width(&widths) > width) {
            widths[part] = 0;
        }
    }
    let room = look.width.unwrap_or(usize::MAX).saturating_sub(first + total_width(&widths) + 4);
    let title_width = longest.min(room.max(8));
    for (name, row) in names.iter().zip(rows) {
        for (index, (cell, shown)) in row.iter().zip(&table.columns).enumerate() {
            let title = shortened(&shown.title, title_width);
            let name = if index == 0 { name.as_str() } else { "" };
            write!(text, "{name:first$}  {title:title_width$}  ").expect(FITS);
            push_parts(&mut text, cell, &widths, look);
            end_line(&mut text);
        }
    }
    text
}

/// Keeps the end, which tells paths apart.
fn shortened(title: &str, width: usize) -> String {
    let count = title.chars().count();
    if count <= width {
        return title.to_owned();
    }
    std::iter::once('…').chain(title.chars().skip(count + 1 - width)).collect()
}

fn end_line(text: &mut String) {
    text.truncate(text.trim_end_matches(' ').len());
    text.push('\n');
}

fn push_wrapped(text: &mut String, sentence: &str, look: Look, style: Style) {
    let width = look.width.unwrap_or(usize::MAX).max(20);
    let mut line = String::new();
    for word in sentence.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            writeln!(text, "{}", look.painted(&line, style)).expect(FITS);
            "  ".clone_into(&mut line);
            line.push_str(word);
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    writeln!(text, "{}", look.painted(&line, style)).expect(FITS);
}

/// Without what sets colours.
fn visible_width(line: &str) -> usize {
    line.split('\x1b')
        .enumerate()
        .map(|(index, part)| {
            let visible = if index == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) };
            visible.chars().count()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::table::tables_of;
    use super::*;
    use crate::compare::column::Column;
    use crate::result::sample;

    fn table() -> Table {
        tables_of(&Column::of_runs("a", sample::two_brokers(2).runs), None, &[], 200, 1).expect("comparable").remove(0)
    }

    /// Goal: values stand side by side with intervals and ratios; what is invalid is said.
    #[test]
    fn wide() {
        let text = table_text(&table(), Look { width: None, has_colours: false });
        let line = text.lines().find(|line| line.starts_with("p99 ")).expect("a line for p99");
        assert!(line.contains('×') && line.matches('[').count() == 3, "{text}");
        assert!(text.contains("response (intended") && text.contains("INVALID rabbitmq: round 1"), "{text}");
        assert!(!text.contains('\x1b') && text.contains("per-cpu"));
    }

    /// Goal: no line is longer than a narrow terminal, with colours or without.
    #[test]
    fn narrow() {
        let table = table();
        for has_colours in [false, true] {
            for width in [60, 72, 80, 100] {
                let text = table_text(&table, Look { width: Some(width), has_colours });
                for line in text.lines() {
                    assert!(visible_width(line) <= width, "{width}: {line}");
                }
                assert_eq!(text.contains('\x1b'), has_colours);
            }
        }
    }
}
