//! Axes, lines and words on an SVG.

use std::fmt::Write as _;

/// Size of a picture, in px.
pub(super) const WIDTH: f64 = 860.0;
/// Size of a picture, in px.
pub(super) const HEIGHT: f64 = 460.0;

const LEFT: f64 = 70.0;
const RIGHT: f64 = 200.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;
/// Points closer than this, in px, look like one.
const NEAR: f64 = 0.7;
/// Ticks of an axis, about.
const TICKS: f64 = 6.0;

/// How values lie in the picture.
pub(super) struct Frame {
    across: f64,
    up: f64,
}

impl Frame {
    /// From zero to these.
    pub(super) const fn new(across: f64, up: f64) -> Self {
        Self { across, up }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * value / self.across
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.up
    }
}

/// A picture that is being drawn.
pub(super) struct Canvas {
    svg: String,
}

impl Canvas {
    /// An empty picture under a title.
    pub(super) fn new(title: &str, width: f64, height: f64) -> Self {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
             <title>{0}</title>\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n",
            escaped(title)
        );
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"28\" font-size=\"16\">{}</text>",
            escaped(title)
        );
        Self { svg }
    }

    /// Both axes with ticks, a grid and their names.
    pub(super) fn axes(&mut self, frame: &Frame, across: &str, up: &str) {
        let (left, right) = (frame.x(0.0), frame.x(frame.across));
        let (bottom, top) = (frame.y(0.0), frame.y(frame.up));
        for value in ticks(frame.across) {
            let x = frame.x(value);
            let _ = writeln!(
                self.svg,
                "<line x1=\"{x:.1}\" y1=\"{bottom:.1}\" x2=\"{x:.1}\" y2=\"{top:.1}\" stroke=\"#e4e4e4\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{value}</text>",
                bottom + 18.0
            );
        }
        for value in ticks(frame.up) {
            let y = frame.y(value);
            let _ = writeln!(
                self.svg,
                "<line x1=\"{left:.1}\" y1=\"{y:.1}\" x2=\"{right:.1}\" y2=\"{y:.1}\" stroke=\"#e4e4e4\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{value}</text>",
                left - 8.0,
                y + 4.0
            );
        }
        let _ = writeln!(
            self.svg,
            "<path d=\"M{left:.1} {top:.1}V{bottom:.1}H{right:.1}\" fill=\"none\" stroke=\"#444\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(20 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(left, right),
            bottom + 42.0,
            escaped(across),
            f64::midpoint(bottom, top),
            escaped(up)
        );
    }

    /// A broken line at a time, with what it means beside its top.
    pub(super) fn mark(&mut self, frame: &Frame, at: f64, text: &str) {
        let x = frame.x(at);
        let (bottom, top) = (frame.y(0.0), frame.y(frame.up));
        // Words stand on the side where there is room.
        let (anchor, shift) = match at > frame.across / 2.0 {
            true => ("end", -5.0),
            false => ("start", 5.0),
        };
        let y = top - 5.0
            + if text.starts_with("whole") {
                0.0
            } else {
                -12.0
            };
        let _ = writeln!(
            self.svg,
            "<line x1=\"{x:.1}\" y1=\"{bottom:.1}\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"#777\" stroke-dasharray=\"5 4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#444\" font-size=\"12\">{}</text>",
            x + shift,
            y + 8.0,
            escaped(text)
        );
    }

    /// A line through points; those that nobody could tell from the one before are left out.
    pub(super) fn line(&mut self, frame: &Frame, points: &[(f64, f64)], colour: &str) {
        let mut kept: Vec<(f64, f64)> = Vec::new();
        for (index, &(x, y)) in points.iter().enumerate() {
            let (x, y) = (frame.x(x), frame.y(y));
            let near = |&(before_x, before_y): &(f64, f64)| {
                (x - before_x).abs() < NEAR && (y - before_y).abs() < NEAR
            };
            if index + 1 == points.len() || !kept.last().is_some_and(near) {
                kept.push((x, y));
            }
        }
        let points: Vec<String> = kept.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }

    /// A piece: a bar from a time to the right, one unit high, thin where there are many.
    pub(super) fn bar(&mut self, frame: &Frame, at: f64, row: f64, colour: &str) {
        let (bottom, top) = (frame.y(row), frame.y(row + 1.0));
        let height = (bottom - top).max(0.8);
        let _ = writeln!(
            self.svg,
            "<rect class=\"piece\" x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"{height:.1}\" fill=\"{colour}\"/>",
            frame.x(at),
            bottom - height
        );
    }

    /// A line of the legend.
    pub(super) fn legend(&mut self, index: usize, colour: &str, text: &str) {
        let (x, y) = (WIDTH - RIGHT + 20.0, TOP + 20.0 * index as f64);
        let _ = writeln!(
            self.svg,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x + 18.0,
            y + 11.0,
            escaped(text)
        );
    }

    /// The picture.
    pub(super) fn finish(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

/// Round values from 0 up to `most`.
fn ticks(most: f64) -> Vec<f64> {
    let rough = (most / TICKS).max(1e-9);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power);
    let step = step
        .into_iter()
        .find(|step| *step >= rough)
        .unwrap_or(power * 10.0);
    let count = (most / step).floor() as usize;
    (0..=count).map(|index| index as f64 * step).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_thousands_of_points_is_one_of_hundreds() {
        let frame = Frame::new(1.0, 1.0);
        let points: Vec<(f64, f64)> = (0..=10_000)
            .map(|step| (f64::from(step) / 1e4, f64::from(step) / 1e4))
            .collect();
        let mut canvas = Canvas::new("t", WIDTH, HEIGHT);
        canvas.line(&frame, &points, "red");
        let svg = canvas.finish();
        assert!(
            svg.contains("points=\"70.0,400.0 ") && svg.contains(" 660.0,50.0\""),
            "{svg}"
        );
        let drawn = svg.matches(',').count();
        assert!((300..1_000).contains(&drawn), "{drawn}");
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(231.0), [0.0, 50.0, 100.0, 150.0, 200.0]);
        assert_eq!(ticks(1.0).len(), 6);
    }
}
