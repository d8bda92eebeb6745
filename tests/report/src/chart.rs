// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Charts as SVG documents that follow the reader's colour scheme.
//!
//! A chart has cases from top to bottom, and each case has bars that are compared with each other.
//! A bar has one value in each panel; the panels are next to each other, each with its own axis.
//! A linear panel draws bars from zero. On a logarithmic axis a bar's length would depend on where
//! the axis begins, so such a panel draws a dot, and a line from the dot to a second value.

use std::fmt::{self, Write};

/// The width of the document. At this width a README shows it at 100 %.
const WIDTH: f64 = 860.0;
const MARGIN: f64 = 16.0;
/// The right edge of the labels; the panels share the rest.
const LABELS: f64 = 150.0;
/// How much of a panel's width is left for the figures at its right.
const FIGURES: f64 = 150.0;
const TOP: f64 = 84.0;
const BAR: f64 = 13.0;
const PITCH: f64 = 17.0;
const CASE_HEAD: f64 = 22.0;
const CASE_GAP: f64 = 8.0;
const BOTTOM: f64 = 30.0;

/// The colours are those of the other pictures in `docs/pictures`.
const STYLE: &str = r#"<style>
  text {
    font: 12px -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif;
    fill: #1f2328;
  }
  path { stroke-width: 2; } .grid { stroke-width: 1; }
  .t { font-size: 16px; font-weight: 600; } .b { font-weight: 600; } .s { fill: #59636e; }
  .grid { stroke: #d1d9e0; } .limit { fill: #d1d9e0; stroke: #d1d9e0; }
  .ours { fill: #0969da; stroke: #0969da; } .other { fill: #8c959f; stroke: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .s { fill: #9198a1; }
    .grid { stroke: #3d444d; } .limit { fill: #3d444d; stroke: #3d444d; }
    .ours { fill: #4493f8; stroke: #4493f8; } .other { fill: #9198a1; stroke: #9198a1; }
  }
</style>"#;

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The headline.
    pub title: String,
    /// What was measured and where, below the headline.
    pub note: String,
    /// From left to right.
    pub panels: Vec<Panel>,
    /// From top to bottom.
    pub cases: Vec<Case>,
}

/// A column of values with one axis.
#[derive(Clone, Debug)]
pub struct Panel {
    /// The quantity, its unit, and which direction is better.
    pub title: String,
    /// How values become lengths.
    pub axis: Axis,
}

/// How values become lengths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Axis {
    /// Bars from zero.
    Linear,
    /// Dots between powers of ten.
    Logarithmic,
}

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its headline.
    pub name: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One line of a case.
#[derive(Clone, Debug)]
pub struct Bar {
    /// At its left.
    pub label: String,
    /// Its colour.
    pub kind: Kind,
    /// One for each panel, in their order; `None` draws nothing.
    pub values: Vec<Option<Value>>,
}

/// Whose bar it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A crate or program of this repository.
    Ours,
    /// Something to compare it with.
    Other,
    /// A limit that no implementation can exceed.
    Limit,
}

/// What a bar shows in one panel. A value that is not greater than zero has no length.
#[derive(Clone, Debug)]
pub struct Value {
    /// The bar's length, or where its dot is.
    pub at: f64,
    /// Where the line from the dot ends.
    pub up_to: Option<f64>,
    /// At its right.
    pub figure: String,
}

impl Chart {
    /// Returns the document, or `None` if a panel has no value to show.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let scales: Option<Vec<Scale>> = (0..self.panels.len())
            .map(|panel| self.scale(panel))
            .collect();
        let mut text = String::new();
        self.draw(&mut text, &scales?).ok()?;
        Some(text)
    }

    fn scale(&self, panel: usize) -> Option<Scale> {
        let bars = self.cases.iter().flat_map(|case| &case.bars);
        let values = bars.filter_map(|bar| bar.values.get(panel)?.as_ref());
        let ends = values.flat_map(|value| [value.at, value.up_to.unwrap_or(value.at)]);
        let width = (WIDTH - LABELS - MARGIN) / self.panels.len() as f64;
        let left = LABELS + 8.0 + width * panel as f64;
        Scale::over(self.panels[panel].axis, ends, left, width - FIGURES)
    }

    fn draw(&self, out: &mut String, scales: &[Scale]) -> fmt::Result {
        let height = TOP + self.cases.iter().map(Case::height).sum::<f64>() + BOTTOM;
        let (title, note) = (escaped(&self.title), escaped(&self.note));
        writeln!(
            out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"
  aria-labelledby="t d">
<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->
<title id="t">{title}</title>
<desc id="d">{note}</desc>
{STYLE}
<text x="{MARGIN}" y="24" class="t">{title}</text>
<text x="{MARGIN}" y="44" class="s">{note}</text>"#
        )?;
        for (panel, scale) in self.panels.iter().zip(scales) {
            let (left, title) = (scale.left, escaped(&panel.title));
            writeln!(out, r#"<text x="{left}" y="70" class="b">{title}</text>"#)?;
            scale.draw_grid(out, height - BOTTOM)?;
        }
        let mut y = TOP;
        for case in &self.cases {
            let (base, name) = (y + 15.0, escaped(&case.name));
            writeln!(
                out,
                r#"<text x="{MARGIN}" y="{base}" class="b">{name}</text>"#
            )?;
            for (index, bar) in case.bars.iter().enumerate() {
                bar.draw(out, scales, y + CASE_HEAD + index as f64 * PITCH)?;
            }
            y += case.height();
        }
        writeln!(out, "</svg>")
    }
}

impl Case {
    fn height(&self) -> f64 {
        CASE_HEAD + self.bars.len() as f64 * PITCH + CASE_GAP
    }
}

impl Bar {
    fn draw(&self, out: &mut String, scales: &[Scale], top: f64) -> fmt::Result {
        let (base, label) = (top + BAR - 2.5, escaped(&self.label));
        writeln!(
            out,
            r#"<text x="{LABELS}" y="{base}" text-anchor="end">{label}</text>"#
        )?;
        let class = match self.kind {
            Kind::Ours => "ours",
            Kind::Other => "other",
            Kind::Limit => "limit",
        };
        for (value, scale) in self.values.iter().zip(scales) {
            let Some(value) = value else { continue };
            let at = scale.position(value.at);
            let end = value.up_to.map_or(at, |end| scale.position(end).max(at));
            match scale.axis {
                Axis::Linear => writeln!(
                    out,
                    r#"<rect class="{class}" x="{:.1}" y="{top}" width="{:.1}" height="{BAR}"/>"#,
                    scale.left,
                    at - scale.left
                )?,
                Axis::Logarithmic => {
                    let middle = top + BAR / 2.0;
                    writeln!(
                        out,
                        r#"<path class="{class}" d="M{at:.1} {middle} H{end:.1} m0 -4 v8"/>
<circle class="{class}" cx="{at:.1}" cy="{middle}" r="4.5"/>"#
                    )?;
                }
            }
            let (right, figure) = (end + 8.0, escaped(&value.figure));
            writeln!(out, r#"<text x="{right:.1}" y="{base}">{figure}</text>"#)?;
        }
        Ok(())
    }
}

/// The axis of one panel: where it is, and which values its ends are.
#[derive(Clone, Copy)]
struct Scale {
    axis: Axis,
    left: f64,
    width: f64,
    /// In the axis' own terms: a value, or its decimal logarithm.
    first: f64,
    last: f64,
}

impl Scale {
    fn over(axis: Axis, values: impl Iterator<Item = f64>, left: f64, width: f64) -> Option<Self> {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0);
        let (least, most) = positive.fold(None, |ends: Option<(f64, f64)>, value| {
            let (least, most) = ends.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        })?;
        let (first, last) = match axis {
            Axis::Linear => (0.0, most),
            Axis::Logarithmic => {
                let first = least.log10().floor();
                (first, most.log10().ceil().max(first + 1.0))
            }
        };
        Some(Self {
            axis,
            left,
            width,
            first,
            last,
        })
    }

    fn position(self, value: f64) -> f64 {
        let value = match self.axis {
            Axis::Linear => value,
            Axis::Logarithmic => value.log10(),
        };
        let share = (value - self.first) / (self.last - self.first);
        self.left + share.max(0.0) * self.width
    }

    /// The values that are marked: powers of ten, or two to five multiples of a round step.
    fn marks(self) -> Vec<f64> {
        let mut marks = Vec::new();
        match self.axis {
            Axis::Logarithmic => {
                let mut power = self.first;
                while power <= self.last {
                    marks.push(10_f64.powf(power));
                    power += 1.0;
                }
            }
            Axis::Linear => {
                // The rough step has one to ten as its first digit: the round steps are 1, 2 and 5.
                let rough = self.last / 4.0;
                let power = 10_f64.powf(rough.log10().floor());
                let step = match rough / power {
                    digit if digit <= 1.0 => power,
                    digit if digit <= 2.0 => 2.0 * power,
                    digit if digit <= 5.0 => 5.0 * power,
                    _ => 10.0 * power,
                };
                let mut count = 0.0;
                while count * step <= self.last {
                    marks.push(count * step);
                    count += 1.0;
                }
            }
        }
        marks
    }

    fn draw_grid(self, out: &mut String, foot: f64) -> fmt::Result {
        for value in self.marks() {
            let (x, base) = (self.position(value), foot + 16.0);
            // Sums of decimal steps have noise in the last digits.
            let label = (value * 1e6).round() / 1e6;
            writeln!(
                out,
                r#"<path class="grid" d="M{x:.1} {TOP} V{foot}"/>
<text x="{x:.1}" y="{base}" text-anchor="middle" class="s">{label}</text>"#
            )?;
        }
        Ok(())
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Axis, Bar, Case, Chart, Kind, Panel, Value};

    fn chart(axis: Axis, values: &[f64]) -> Chart {
        let bar = |at: &f64| Bar {
            label: "row".to_owned(),
            kind: Kind::Ours,
            values: vec![Some(Value {
                at: *at,
                up_to: None,
                figure: "figure".to_owned(),
            })],
        };
        Chart {
            title: "a & b".to_owned(),
            note: String::new(),
            panels: vec![Panel {
                title: "MB/s".to_owned(),
                axis,
            }],
            cases: vec![Case {
                name: "case".to_owned(),
                bars: values.iter().map(bar).collect(),
            }],
        }
    }

    #[test]
    fn a_bar_begins_at_zero() {
        // The plot is 544 wide: the document without margins, labels and figures.
        let svg = chart(Axis::Linear, &[100.0, 25.0]).svg().unwrap();
        assert!(svg.contains("a &amp; b"), "{svg}");
        assert!(svg.contains(r#"width="544.0""#), "{svg}");
        assert!(svg.contains(r#"width="136.0""#), "{svg}");
    }

    #[test]
    fn a_dot_is_between_powers_of_ten() {
        let svg = chart(Axis::Logarithmic, &[31.622_776_6, 1.0, 1000.0]).svg();
        let svg = svg.unwrap();
        assert!(svg.contains(r#"cx="430.0""#), "half of 544 from 158: {svg}");
    }

    #[test]
    fn marks_are_round_and_few() {
        for (most, expected) in [
            (17.2, &[0.0, 5.0, 10.0, 15.0][..]),
            (1.0, &[0.0, 0.5, 1.0]),
            (3500.0, &[0.0, 1000.0, 2000.0, 3000.0]),
        ] {
            let chart = chart(Axis::Linear, &[most]);
            assert_eq!(chart.scale(0).unwrap().marks(), expected);
        }
    }

    #[test]
    fn without_a_value_there_is_no_chart() {
        assert_eq!(chart(Axis::Linear, &[0.0, f64::NAN]).svg(), None);
    }
}
