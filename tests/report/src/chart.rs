// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bars, grouped by case, on a logarithmic scale: an SVG document.

use std::fmt::{self, Write};

use crate::spread::Spread;

const WIDTH: f64 = 900.0;
const LABELS: f64 = 190.0;
const FIGURES: f64 = 170.0;
const TOP: f64 = 64.0;
const BAR: f64 = 18.0;
const GAP: f64 = 4.0;
const CASE_GAP: f64 = 30.0;
const BOTTOM: f64 = 34.0;

/// Ours, told apart from the others also without colours: by the order.
pub const OURS: &str = "#0b6e4f";
/// A limit that nothing can pass.
pub const LIMIT: &str = "#c9c9c9";
/// A peer.
pub const PEER: &str = "#5b8cc0";

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// The headline.
    pub title: String,
    /// What the bars say, below the headline.
    pub note: String,
    /// A value of the scale as it is marked.
    pub mark: fn(f64) -> String,
    /// From top to bottom.
    pub cases: Vec<Case>,
}

/// Bars that are compared with each other.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its headline.
    pub name: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One bar. One whose value is not greater than zero has no length.
#[derive(Clone, Debug)]
pub struct Bar {
    /// At its left.
    pub label: String,
    /// Its length.
    pub value: f64,
    /// At its right.
    pub figure: String,
    /// As SVG has it.
    pub colour: &'static str,
}

impl Chart {
    /// The document; `None` if no bar has a length.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let bars = self.cases.iter().flat_map(|case| &case.bars);
        let scale = Scale::over(bars.map(|bar| bar.value))?;
        let mut text = String::new();
        self.draw(&mut text, scale).ok()?;
        Some(text)
    }

    fn draw(&self, out: &mut String, scale: Scale) -> fmt::Result {
        let height = TOP + self.cases.iter().map(Case::height).sum::<f64>() + BOTTOM;
        writeln!(
            out,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="white"/>
<text x="16" y="26" font-size="16" font-weight="bold">{}</text>
<text x="16" y="46" fill="#666">{}</text>"##,
            escaped(&self.title),
            escaped(&self.note),
        )?;
        for value in scale.grid() {
            let x = LABELS + scale.length(value);
            let (top, foot, label) = (TOP, height - BOTTOM, (self.mark)(value));
            writeln!(
                out,
                r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{foot}" stroke="#ddd"/>
<text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#666">{label}</text>"##,
                foot + 16.0,
            )?;
        }
        let mut y = TOP;
        for case in &self.cases {
            writeln!(
                out,
                r#"<text x="16" y="{:.1}" font-weight="bold">{}</text>"#,
                y + 18.0,
                escaped(&case.name)
            )?;
            for (index, bar) in case.bars.iter().enumerate() {
                let top = y + 24.0 + index as f64 * (BAR + GAP);
                bar.draw(out, scale, top)?;
            }
            y += case.height();
        }
        writeln!(out, "</svg>")
    }
}

impl Case {
    fn height(&self) -> f64 {
        self.bars.len() as f64 * (BAR + GAP) + CASE_GAP
    }
}

impl Bar {
    fn draw(&self, out: &mut String, scale: Scale, top: f64) -> fmt::Result {
        let (length, foot) = (scale.length(self.value), top + BAR - 5.0);
        writeln!(
            out,
            r#"<text x="{:.1}" y="{foot:.1}" text-anchor="end">{}</text>
<rect x="{LABELS}" y="{top:.1}" width="{length:.1}" height="{BAR}" fill="{}"/>
<text x="{:.1}" y="{foot:.1}">{}</text>"#,
            LABELS - 6.0,
            escaped(&self.label),
            self.colour,
            LABELS + length + 6.0,
            escaped(&self.figure),
        )
    }
}

/// Powers of ten around all values, over the width of the plot.
#[derive(Clone, Copy)]
struct Scale {
    first: i32,
    last: i32,
}

impl Scale {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the logarithm of a double fits; the cast saturates"
    )]
    fn over(values: impl Iterator<Item = f64>) -> Option<Self> {
        let spread = Spread::of(values.filter(|value| *value > 0.0))?;
        let first = spread.least.log10().floor() as i32;
        let last = (spread.most.log10().ceil() as i32).max(first + 1);
        Some(Self { first, last })
    }

    fn length(self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        share.max(0.0) * (WIDTH - LABELS - FIGURES)
    }

    fn grid(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|power| 10_f64.powi(power))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Bar, Case, Chart, PEER};

    fn chart(value: f64) -> Chart {
        Chart {
            title: "a & b".to_owned(),
            note: String::new(),
            mark: |value| value.to_string(),
            cases: vec![Case {
                name: "case".to_owned(),
                bars: vec![Bar {
                    label: "row".to_owned(),
                    value,
                    figure: "figure".to_owned(),
                    colour: PEER,
                }],
            }],
        }
    }

    #[test]
    fn a_bar_is_as_long_as_the_logarithm_of_its_value() {
        // Half of the way from 10 to 1,000, over the 540 units between labels and figures.
        let svg = chart(31.622_776_6).svg().unwrap();
        assert!(svg.contains("a &amp; b"), "{svg}");
        assert!(svg.contains(r#"width="270.0""#), "{svg}");
    }

    #[test]
    fn without_a_length_there_is_no_chart() {
        assert_eq!(chart(0.0).svg(), None);
    }
}
