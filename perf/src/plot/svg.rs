//! Drawings as SVG.

use std::fmt::Write as _;

use super::{Anchor, Colour, Drawing, Shape};

const FITS: &str = "a string takes any text";

/// The whole file.
pub fn text(drawing: &Drawing) -> String {
    let Drawing { width, height, ground, shapes, description } = drawing;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"'DejaVu Sans', Verdana, Geneva, sans-serif\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"{}\"/>\n",
        escaped(description),
        hex(*ground)
    );
    for shape in shapes {
        push(&mut text, shape);
    }
    text.push_str("</svg>\n");
    text
}

fn push(text: &mut String, shape: &Shape) {
    match shape {
        Shape::Line { points, colour, width, dash } => {
            let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let dash = dash.map_or_else(String::new, |dash| format!(" stroke-dasharray=\"{dash}\""));
            writeln!(
                text,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\" stroke-linejoin=\"round\"{dash}/>",
                points.join(" "),
                hex(*colour)
            )
            .expect(FITS);
        }
        Shape::Text { at: (x, y), anchor, size, colour, text: content } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            writeln!(
                text,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{}\">{}</text>",
                hex(*colour),
                escaped(content)
            )
            .expect(FITS);
        }
    }
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// For text and attributes of XML, which has no control characters.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
