//! Drawings as PNG, with a font of our own: it needs none on the machine.

use std::sync::OnceLock;

use tiny_skia::{Color, FillRule, LineJoin, Paint, Path, PathBuilder, Pixmap, Stroke, StrokeDash, Transform};
use ttf_parser::{Face, GlyphId, OutlineBuilder};

use super::{Anchor, Colour, Drawing, Shape};

/// DejaVu Sans with Latin, Greek and Cyrillic letters; `font/LICENSE` beside it says more.
static FONT: &[u8] = include_bytes!("font/dejavu-sans-subset.ttf");
/// Pixels for each point, for screens of today.
const SCALE: f32 = 2.0;

fn face() -> &'static Face<'static> {
    static FACE: OnceLock<Face<'static>> = OnceLock::new();
    FACE.get_or_init(|| Face::parse(FONT, 0).expect("the font is a part of the program"))
}

/// What is not in the font gets its sign for that.
fn glyph(c: char) -> GlyphId {
    face().glyph_index(c).unwrap_or(GlyphId(0))
}

fn em(size: f64) -> f64 {
    size / f64::from(face().units_per_em())
}

/// In points.
pub fn text_width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| f64::from(face().glyph_hor_advance(glyph(c)).unwrap_or(0)) * em(size)).sum()
}

/// The whole file.
pub fn octets(drawing: &Drawing) -> Vec<u8> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred points")]
    let pixels = |points: f64| (points as f32 * SCALE) as u32;
    let mut pixmap = Pixmap::new(pixels(drawing.width), pixels(drawing.height)).expect("it is not empty");
    pixmap.fill(color(drawing.ground));
    for shape in &drawing.shapes {
        draw(&mut pixmap, shape);
    }
    pixmap.encode_png().expect("writing to memory does not fail")
}

fn color([red, green, blue]: Colour) -> Color {
    Color::from_rgba8(red, green, blue, 255)
}

#[allow(clippy::cast_possible_truncation, reason = "a pixel is far more than what is lost")]
fn point((x, y): (f64, f64)) -> (f32, f32) {
    (x as f32, y as f32)
}

fn draw(pixmap: &mut Pixmap, shape: &Shape) {
    let mut paint = Paint::default();
    let scale = Transform::from_scale(SCALE, SCALE);
    match shape {
        Shape::Line { points, colour, width, dash } => {
            paint.set_color(color(*colour));
            let (width, dash) = point((*width, dash.unwrap_or(0.0)));
            let dash = if dash > 0.0 { StrokeDash::new(vec![dash, dash], 0.0) } else { None };
            let stroke = Stroke { width, line_join: LineJoin::Round, dash, ..Stroke::default() };
            let mut builder = PathBuilder::new();
            for (index, at) in points.iter().enumerate() {
                let (x, y) = point(*at);
                if index == 0 { builder.move_to(x, y) } else { builder.line_to(x, y) }
            }
            if let Some(path) = builder.finish() {
                pixmap.stroke_path(&path, &paint, &stroke, scale, None);
            }
        }
        Shape::Text { at, anchor, size, colour, text } => {
            paint.set_color(color(*colour));
            let width = text_width(text, *size);
            let shift = match anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => width / 2.0,
                Anchor::End => width,
            };
            if let Some(path) = outline(text, (at.0 - shift, at.1), *size) {
                pixmap.fill_path(&path, &paint, FillRule::Winding, scale, None);
            }
        }
    }
}

/// `None` where there is nothing to see.
fn outline(text: &str, at: (f64, f64), size: f64) -> Option<Path> {
    let mut pen = Pen { builder: PathBuilder::new(), origin: point(at), em: point((em(size), 0.0)).0 };
    for c in text.chars() {
        let glyph = glyph(c);
        face().outline_glyph(glyph, &mut pen);
        pen.origin.0 += f32::from(face().glyph_hor_advance(glyph).unwrap_or(0)) * pen.em;
    }
    pen.builder.finish()
}

/// Draws letters at a place. The vertical axis of fonts goes up.
struct Pen {
    builder: PathBuilder,
    origin: (f32, f32),
    em: f32,
}

impl Pen {
    fn at(&self, x: f32, y: f32) -> (f32, f32) {
        (self.origin.0 + x * self.em, self.origin.1 - y * self.em)
    }
}

impl OutlineBuilder for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.builder.move_to(x, y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let (x, y) = self.at(x, y);
        self.builder.line_to(x, y);
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        let ((x1, y1), (x, y)) = (self.at(x1, y1), self.at(x, y));
        self.builder.quad_to(x1, y1, x, y);
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        let ((x1, y1), (x2, y2), (x, y)) = (self.at(x1, y1), self.at(x2, y2), self.at(x, y));
        self.builder.cubic_to(x1, y1, x2, y2, x, y);
    }

    fn close(&mut self) {
        self.builder.close();
    }
}
