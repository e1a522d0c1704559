//! Percentile plots: which lines there are and where they go. [`svg`] and [`png`] write the same drawing.
//!
//! The horizontal axis is 1/(1-percentile), logarithmic, so that each further nine is as wide as the one before.

mod axis;
pub mod png;
pub mod svg;

use clap::ValueEnum;

use crate::compare::column::{Column, Source, best_common, titles};
use crate::output_options::PlotOptions;
use crate::result::histogram;
use axis::Axis;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 540.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 28.0;
const BOTTOM: f64 = 62.0;
const MARGIN: f64 = 22.0;
const LEGEND_LINE: f64 = 22.0;
/// Points to each halving of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 20;

/// Background and foreground.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Theme {
    /// For paper.
    #[default]
    Light,
    /// For screens in the dark.
    Dark,
}

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Colours that people with any common colour blindness can tell apart (Okabe and Ito; for dark grounds lightened).
const LIGHT: [Colour; 7] =
    [[0, 114, 178], [213, 94, 0], [0, 140, 102], [190, 90, 150], [200, 135, 0], [60, 160, 215], [90, 90, 90]];
const DARK: [Colour; 7] =
    [[86, 180, 233], [255, 140, 60], [45, 200, 155], [230, 145, 195], [240, 200, 60], [120, 150, 255], [170, 170, 170]];

/// What is drawn, in order.
#[derive(Debug)]
pub struct Drawing {
    /// In points.
    pub width: f64,
    /// In points.
    pub height: f64,
    /// Of the ground.
    pub ground: Colour,
    /// Later ones cover earlier ones.
    pub shapes: Vec<Shape>,
    /// For those who do not see it.
    pub description: String,
}

/// One thing.
#[derive(Debug)]
pub enum Shape {
    /// Straight parts from point to point.
    Line {
        /// Horizontal from the left, vertical from the top.
        points: Vec<(f64, f64)>,
        /// Of the line.
        colour: Colour,
        /// Of the line.
        width: f64,
        /// Lengths of dash and gap; `None`: solid.
        dash: Option<f64>,
    },
    /// One line of text.
    Text {
        /// Of the anchor, on the base line.
        at: (f64, f64),
        /// What is at `at`.
        anchor: Anchor,
        /// Height of the font.
        size: f64,
        /// Of the letters.
        colour: Colour,
        /// As it is.
        text: String,
    },
}

/// Where a text is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

struct Series {
    title: String,
    /// log10 of 1/(1-quantile), and nanoseconds.
    points: Vec<(f64, f64)>,
}

struct Ink {
    ground: Colour,
    text: Colour,
    quiet: Colour,
    grid: Colour,
    lines: [Colour; 7],
}

impl Ink {
    fn of(theme: Theme) -> Self {
        match theme {
            Theme::Light => Self {
                ground: [255, 255, 255],
                text: [30, 34, 40],
                quiet: [95, 102, 112],
                grid: [226, 229, 233],
                lines: LIGHT,
            },
            Theme::Dark => Self {
                ground: [20, 23, 28],
                text: [232, 234, 237],
                quiet: [160, 167, 177],
                grid: [48, 53, 61],
                lines: DARK,
            },
        }
    }
}

/// The percentiles of one histogram, a line for each column; of all histograms, where there is one column and none is asked for.
///
/// # Errors
/// A sentence where the columns have not that histogram, or none in common.
pub fn percentiles(columns: &[&Column], options: &PlotOptions) -> Result<Drawing, String> {
    let (title, series) = series_of(columns, options.histogram.as_deref())?;
    let ink = Ink::of(options.theme);
    let mut shapes = Vec::new();
    let push_text = |shapes: &mut Vec<Shape>, at, anchor, size, colour, text: String| {
        shapes.push(Shape::Text { at, anchor, size, colour, text });
    };
    push_text(&mut shapes, (MARGIN, 34.0), Anchor::Start, 17.0, ink.text, title.clone());
    let top = legend(&mut shapes, &series, &ink) + 16.0;
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);

    let decades = series.iter().filter_map(|series| series.points.last()).map(|point| point.0).fold(1.0, f64::max);
    let x = |inverse: f64| LEFT + inverse / decades * (right - LEFT);
    let values = || series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let axis = if options.log_y {
        Axis::logarithmic(
            values().filter(|&nanos| nanos > 0.0).fold(f64::INFINITY, f64::min),
            values().fold(1.0, f64::max),
        )
    } else {
        Axis::linear(values().fold(1.0, f64::max))
    };
    let y = |nanos: f64| bottom - axis.place(nanos) * (bottom - top);

    for (nanos, label) in &axis.ticks {
        let at = y(*nanos);
        shapes.push(Shape::Line { points: vec![(LEFT, at), (right, at)], colour: ink.grid, width: 1.0, dash: None });
        push_text(&mut shapes, (LEFT - 10.0, at + 4.5), Anchor::End, 12.5, ink.quiet, label.clone());
    }
    for (inverse, label) in axis::percentile_ticks(decades) {
        let at = x(inverse);
        shapes.push(Shape::Line { points: vec![(at, top), (at, bottom)], colour: ink.grid, width: 1.0, dash: None });
        push_text(&mut shapes, (at, bottom + 22.0), Anchor::Middle, 12.5, ink.quiet, label);
    }
    shapes.push(Shape::Line {
        points: vec![(LEFT, bottom), (right, bottom)],
        colour: ink.quiet,
        width: 1.0,
        dash: None,
    });
    push_text(
        &mut shapes,
        (f64::midpoint(LEFT, right), HEIGHT - 16.0),
        Anchor::Middle,
        12.5,
        ink.quiet,
        "percentile".to_owned(),
    );
    // The first ones stand on top.
    for (index, series) in series.iter().enumerate().rev() {
        let points = series.points.iter().map(|&(inverse, nanos)| (x(inverse), y(nanos))).collect();
        shapes.push(line_of(index, points, &ink));
    }
    let names: Vec<&str> = series.iter().map(|series| series.title.as_str()).collect();
    let description = format!("{title}: latency by percentile of {}", names.join(", "));
    Ok(Drawing { width: WIDTH, height: HEIGHT, ground: ink.ground, shapes, description })
}

/// Beyond as many lines as there are colours, dashes tell them apart.
fn line_of(index: usize, points: Vec<(f64, f64)>, ink: &Ink) -> Shape {
    let dash = [None, Some(7.0), Some(2.5)][(index / ink.lines.len()) % 3];
    Shape::Line { points, colour: ink.lines[index % ink.lines.len()], width: 2.2, dash }
}

/// Returns where it ends.
fn legend(shapes: &mut Vec<Shape>, series: &[Series], ink: &Ink) -> f64 {
    let (mut left, mut base) = (MARGIN, 60.0);
    for (index, series) in series.iter().enumerate() {
        let title = fitting(&series.title, WIDTH - 2.0 * MARGIN - 34.0);
        let width = 34.0 + png::text_width(&title, 13.0);
        if left > MARGIN && left + width > WIDTH - MARGIN {
            left = MARGIN;
            base += LEGEND_LINE;
        }
        shapes.push(line_of(index, vec![(left, base - 4.5), (left + 24.0, base - 4.5)], ink));
        shapes.push(Shape::Text {
            at: (left + 31.0, base),
            anchor: Anchor::Start,
            size: 13.0,
            colour: ink.text,
            text: title,
        });
        left += width + 20.0;
    }
    base
}

fn fitting(title: &str, width: f64) -> String {
    let mut text = title.to_owned();
    while png::text_width(&text, 13.0) > width {
        let count = text.chars().count();
        text = std::iter::once('…').chain(text.chars().skip(count / 20 + 2)).collect();
    }
    text
}

fn series_of(columns: &[&Column], wanted: Option<&str>) -> Result<(String, Vec<Series>), String> {
    let meaning = |name: &str| histogram::ALL.iter().find(|(own, _)| *own == name).map(|(_, meaning)| *meaning);
    let titled = |name: &str| match meaning(name) {
        Some(meaning) => format!("{name}: {meaning}"),
        None if name.is_empty() => "latency".to_owned(),
        None => name.to_owned(),
    };
    if let (&[column], None) = (columns, wanted) {
        let names = column.histogram_names();
        let series: Vec<Series> =
            names.iter().map(|name| Series { title: titled(name), points: points(column, name) }).collect();
        let title = titles(columns).remove(0);
        return if series.is_empty() { Err("there are no latencies to draw".to_owned()) } else { Ok((title, series)) };
    }
    let name = match wanted {
        Some(name) => name.to_owned(),
        None => best_common(columns)
            .ok_or("they have no histogram in common that could be drawn; --histogram chooses one")?,
    };
    let mut series = Vec::new();
    for (column, title) in columns.iter().zip(titles(columns)) {
        let points = points(column, &name);
        if points.is_empty() {
            return Err(format!("{title} has no histogram '{name}'"));
        }
        let is_invalid = column.runs().iter().any(|run| !run.invalid.is_empty());
        series.push(Series { title: if is_invalid { format!("{title} (INVALID)") } else { title }, points });
    }
    Ok((titled(&name), series))
}

/// log10 of 1/(1-quantile), and nanoseconds; the longest stands where one message is. Nothing where there is no such histogram.
pub fn points(column: &Column, histogram: &str) -> Vec<(f64, f64)> {
    if column.own_name(histogram).is_none() {
        return Vec::new();
    }
    let place = |quantile: f64| -(1.0 - quantile).log10();
    if let Source::Distribution(distribution) = &column.source {
        let mut points: Vec<(f64, f64)> = Vec::new();
        for &(quantile, nanos) in &distribution.points {
            let before = points.last().map_or(0.0, |point| point.0);
            let end = distribution.count.map_or(before + 0.3, |count| (count.max(2) as f64).log10());
            points.push((if quantile < 1.0 { place(quantile) } else { end.max(before) }, nanos));
        }
        return points;
    }
    let Some(recorded) = column.histogram(histogram) else { return Vec::new() };
    let end = (recorded.0.len().max(2) as f64).log10();
    let steps = recorded.0.iter_quantiles(TICKS_PER_HALF_DISTANCE);
    let mut points: Vec<(f64, f64)> =
        steps.map(|step| (place(step.quantile_iterated_to()).min(end), step.value_iterated_to() as f64)).collect();
    points.push((end, recorded.0.max() as f64));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::sample;

    /// Goal: the plot has the titles, its lines are within it and rise, and both ways of writing take it.
    #[test]
    fn two_brokers_are_drawn() {
        let columns = Column::of_runs("a", sample::two_brokers(2).runs);
        for (theme, log_y) in [(Theme::Light, false), (Theme::Dark, true)] {
            let options = PlotOptions { histogram: None, theme, log_y };
            let drawing = percentiles(&columns.iter().collect::<Vec<_>>(), &options).expect("drawn");
            for shape in &drawing.shapes {
                if let Shape::Line { points, .. } = shape {
                    assert!(points.iter().all(|&(x, y)| (0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y)));
                    assert!(points.windows(2).all(|two| two[0].0 <= two[1].0), "percentiles rise");
                }
            }
            let text = svg::text(&drawing);
            for expected in ["lepus", "rabbitmq (INVALID)", "99.9%", "response: intended"] {
                assert!(text.contains(expected), "{expected}");
            }
            let octets = png::octets(&drawing);
            assert!(octets.starts_with(b"\x89PNG") && octets.len() > 10_000, "{}", octets.len());
        }
    }

    /// Goal: titles cannot break out of the SVG.
    #[test]
    fn titles_are_escaped() {
        let mut columns = Column::of_runs("a", sample::two_brokers(1).runs);
        columns[0].target = "<script>&\"'\u{1}".to_owned();
        let drawing = percentiles(&columns.iter().collect::<Vec<_>>(), &PlotOptions::default()).expect("drawn");
        let text = svg::text(&drawing);
        assert!(text.contains("&lt;script&gt;&amp;") && !text.contains("<script") && !text.contains('\u{1}'));
    }

    /// Goal: points are those of the distribution.
    #[test]
    fn points_are_quantiles() {
        let column = Column::of_runs("a", sample::one_broker(1.0).runs).remove(0);
        let histogram = column.histogram("service").expect("there").0;
        let points = points(&column, "service");
        let at = |inverse: f64| points.iter().find(|point| point.0 >= inverse - 1e-9).expect("there").1;
        let right = histogram.value_at_quantile(0.5) as f64;
        assert!((at(0.5_f64.log10().abs()) - right).abs() < 1.0);
        assert!((points.last().expect("there").1 - histogram.max() as f64).abs() < 1.0);
    }
}
