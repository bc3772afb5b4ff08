//! A line chart as SVG, without a script and without a link.
//!
//! Colors are those of Okabe and Ito, which people with any kind of color vision can tell apart, as variables
//! of the page's style sheet: the page sets others in the dark. Lines differ in width and dashes as well. A
//! screen reader gets the title and a description in words.

use std::{fmt::Write, time::SystemTime};

use super::{
    scale::{self, Tick},
    text::{Esc, number},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 250.0;
/// The plot: left, right, top, bottom.
const PLOT: [f64; 4] = [58.0, WIDTH - 26.0, 44.0, HEIGHT - 28.0];

/// Longest name in a legend.
const NAME_CHARS: usize = 24;

/// Width of a character of the legend, roughly.
const CHAR_WIDTH: f64 = 7.2;

/// Width of a character of a label, roughly.
const LABEL_CHAR_WIDTH: f64 = 6.4;

/// A chart over time.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// Its name in the document; letters, digits and `-`.
    pub(super) key: &'static str,
    pub(super) title: String,
    /// What it shows, in words.
    pub(super) description: String,
    /// The unit of its values, as at the axis.
    pub(super) unit: &'static str,
    /// The moment to which all times are relative.
    pub(super) origin: SystemTime,
    /// Beginning and end, in seconds since the origin.
    pub(super) span_s: (f64, f64),
    /// The axis reaches at least this value.
    pub(super) least_top: f64,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

/// A line, interrupted where there are no values.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) name: String,
    /// Its look: 0 of the version in question, 1 of the baseline, more of others.
    pub(super) look: usize,
    /// Pieces of points: seconds since the origin, and value.
    pub(super) pieces: Vec<Vec<(f64, f64)>>,
}

/// A moment on the axis of time.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) at_s: f64,
    pub(super) label: String,
    pub(super) weight: MarkWeight,
}

/// How a moment is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkWeight {
    /// The incident itself: a line with its label.
    Incident,
    /// The onset of the difference: a dashed line with its label.
    Onset,
    /// Any other: a small sign at the axis, whose label is shown when it is pointed at.
    Note,
}

/// Looks of lines; later ones begin again.
pub(super) const LOOKS: usize = 4;

impl Chart {
    /// The chart as an `svg` element. If it stands `alone`, as a file, it has a style sheet of its own.
    pub(super) fn svg(&self, alone: Option<&str>) -> String {
        let mut svg = String::new();
        // Writing to a string does not fail, here and below.
        let (key, title, description) = (self.key, Esc(&self.title), Esc(&self.description));
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" class=\"chart\" role=\"img\" \
             aria-labelledby=\"{key}-t {key}-d\"><title id=\"{key}-t\">{title}</title>\
             <desc id=\"{key}-d\">{description}</desc>"
        );
        if let Some(style) = alone {
            let _ = write!(
                svg,
                "<style>{style}</style><rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
            );
        }
        let _ = write!(
            svg,
            "<text class=\"head\" x=\"6\" y=\"16\">{title}</text>\
             <text class=\"unit\" x=\"6\" y=\"34\">{}</text>",
            Esc(self.unit)
        );
        let values = scale::values(self.top(), number);
        let plot = Plot { span_s: self.span_s, top: values.last().map_or(1.0, |tick| tick.at) };
        self.legend(&mut svg);
        axes(&mut svg, plot, &values, &scale::times(self.origin, self.span_s.0, self.span_s.1));
        self.marks.iter().for_each(|mark| mark.draw(&mut svg, plot));
        // The version in question is drawn last, above the others.
        self.lines.iter().rev().for_each(|line| line.draw(&mut svg, plot));
        svg.push_str("</svg>");
        svg
    }

    /// The largest value, with some air above.
    fn top(&self) -> f64 {
        let points = self.lines.iter().flat_map(|line| line.pieces.iter().flatten());
        points.fold(self.least_top, |top, (_, value)| top.max(value * 1.04))
    }

    /// Names of the lines, from the right.
    fn legend(&self, svg: &mut String) {
        let mut right = PLOT[1];
        for line in self.lines.iter().rev() {
            let mut name: String = line.name.chars().take(NAME_CHARS).collect();
            if name.len() < line.name.len() {
                name.push('…');
            }
            let left = right - name.chars().count() as f64 * CHAR_WIDTH;
            let (from, to, look) = (left - 26.0, left - 6.0, line.look % LOOKS);
            let _ = write!(
                svg,
                "<path class=\"line look{look}\" d=\"M{from:.1} 12H{to:.1}\"/>\
                 <text class=\"name\" x=\"{left:.1}\" y=\"16\">{}</text>",
                Esc(&name)
            );
            right = from - 16.0;
        }
    }
}

/// The mapping from times and values to the picture.
#[derive(Debug, Clone, Copy)]
struct Plot {
    span_s: (f64, f64),
    top: f64,
}

impl Plot {
    fn x(self, at_s: f64) -> f64 {
        let (from, until) = self.span_s;
        let part = (at_s - from) / (until - from).max(1e-9);
        PLOT[0] + part.clamp(0.0, 1.0) * (PLOT[1] - PLOT[0])
    }

    fn y(self, value: f64) -> f64 {
        PLOT[3] - (value / self.top).clamp(0.0, 1.0) * (PLOT[3] - PLOT[2])
    }

    fn has(self, at_s: f64) -> bool {
        (self.span_s.0..=self.span_s.1).contains(&at_s)
    }
}

fn axes(svg: &mut String, plot: Plot, values: &[Tick], times: &[Tick]) {
    let [left, right, _, bottom] = PLOT;
    for tick in values {
        let y = plot.y(tick.at);
        let (text_x, text_y) = (left - 8.0, y + 4.0);
        let class = if tick.at == 0.0 { "axis" } else { "grid" };
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M{left:.1} {y:.1}H{right:.1}\"/>\
             <text class=\"tick\" x=\"{text_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>",
            Esc(&tick.label)
        );
    }
    for tick in times {
        let (x, down, text_y) = (plot.x(tick.at), bottom + 5.0, bottom + 19.0);
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{x:.1} {bottom:.1}V{down:.1}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"{text_y:.1}\" text-anchor=\"middle\">{}</text>",
            Esc(&tick.label)
        );
    }
}

impl Line {
    fn draw(&self, svg: &mut String, plot: Plot) {
        let look = self.look % LOOKS;
        for piece in &self.pieces {
            match piece[..] {
                [] => {}
                [(at, value)] => {
                    let (x, y) = (plot.x(at), plot.y(value));
                    let _ = write!(
                        svg,
                        "<circle class=\"dot look{look}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.4\"/>"
                    );
                }
                _ => {
                    let _ = write!(svg, "<polyline class=\"line look{look}\" points=\"");
                    for (at, value) in piece {
                        let _ = write!(svg, "{:.1},{:.1} ", plot.x(*at), plot.y(*value));
                    }
                    svg.truncate(svg.trim_end().len());
                    svg.push_str("\"/>");
                }
            }
        }
    }
}

impl Mark {
    fn draw(&self, svg: &mut String, plot: Plot) {
        if !plot.has(self.at_s) {
            return;
        }
        let ([_, _, top, bottom], x, label) = (PLOT, plot.x(self.at_s), Esc(&self.label));
        // The label of the onset is left of its line, that of the incident right of its own, if there is space.
        let width = 8.0 + LABEL_CHAR_WIDTH * self.label.chars().count() as f64;
        let (class, is_left, row) = match self.weight {
            MarkWeight::Note => {
                let (from, to, tip) = (x - 4.0, x + 4.0, bottom - 8.0);
                let _ = write!(
                    svg,
                    "<path class=\"note\" d=\"M{from:.1} {bottom:.1}H{to:.1}L{x:.1} {tip:.1}Z\">\
                     <title>{label}</title></path>"
                );
                return;
            }
            MarkWeight::Onset => ("onset", x - PLOT[0] > width, 0.0),
            MarkWeight::Incident => ("incident", WIDTH - x < width, 13.0),
        };
        let (text_x, anchor) = if is_left { (x - 5.0, "end") } else { (x + 5.0, "start") };
        let (text_y, up) = (top + 9.0 + row, top - 4.0);
        let _ = write!(
            svg,
            "<path class=\"mark {class}\" d=\"M{x:.1} {up:.1}V{bottom:.1}\"/>\
             <text class=\"label\" x=\"{text_x:.1}\" y=\"{text_y:.1}\" text-anchor=\"{anchor}\">{label}</text>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        Chart {
            key: "errors",
            title: "Failed <requests>".to_owned(),
            description: "v42: \"30 %\"".to_owned(),
            unit: "%",
            origin: humantime::parse_rfc3339("2026-11-27T23:15:00Z").expect("a time"),
            span_s: (-60.0, 60.0),
            least_top: 1.0,
            lines: vec![
                Line {
                    name: "v42".to_owned(),
                    look: 0,
                    pieces: vec![vec![(-60.0, 0.0), (0.0, 20.0)], vec![(30.0, 5.0)], vec![]],
                },
                Line { name: "x".repeat(40), look: 5, pieces: Vec::new() },
            ],
            marks: vec![
                Mark { at_s: 0.0, label: "ejected".to_owned(), weight: MarkWeight::Incident },
                Mark { at_s: -1.0, label: "onset".to_owned(), weight: MarkWeight::Onset },
                Mark { at_s: 9.0, label: "weights".to_owned(), weight: MarkWeight::Note },
                Mark { at_s: 99.0, label: "later".to_owned(), weight: MarkWeight::Note },
            ],
        }
    }

    #[test]
    fn lines_are_where_their_values_are() {
        let svg = chart().svg(None);
        // The axis reaches 30: with air above, 20 would not be enough.
        assert!(
            svg.contains("<polyline class=\"line look0\" points=\"58.0,222.0 376.0,103.3\"/>"),
            "{svg}"
        );
        assert!(
            svg.contains("<circle class=\"dot look0\" cx=\"535.0\" cy=\"192.3\" r=\"2.4\"/>"),
            "{svg}"
        );
        assert!(svg.contains("<title id=\"errors-t\">Failed &lt;requests&gt;</title>"), "{svg}");
        assert!(svg.contains("<desc id=\"errors-d\">v42: &quot;30 %&quot;</desc>"), "{svg}");
        for label in [">30<", ">23:15:00<", ">ejected<", ">onset<", "<title>weights</title>"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        assert!(svg.contains("class=\"line look1\"") && svg.contains("…</text>"), "{svg}");
        assert!(
            !svg.contains("later") && !svg.contains("NaN") && !svg.contains("<style>"),
            "{svg}"
        );
    }

    #[test]
    fn an_empty_chart_has_its_axes() {
        let empty = Chart { lines: Vec::new(), span_s: (0.0, 0.0), ..chart() };
        let svg = empty.svg(Some(".a{}"));
        assert!(svg.contains("<style>.a{}</style>") && svg.ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
