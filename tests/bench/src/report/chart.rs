// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A chart per workload: one bar per row, grouped by case, on a logarithmic scale.

use std::fmt::{self, Write};

use vsock_report::{Spread, digits};

use crate::report::format::rate;
use crate::results::{Cell, Results};
use crate::suite::{UNIX, Unit, Workload};

const WIDTH: f64 = 900.0;
const LABELS: f64 = 190.0;
const FIGURES: f64 = 170.0;
const TOP: f64 = 64.0;
const BAR: f64 = 18.0;
const GAP: f64 = 4.0;
const CASE_GAP: f64 = 30.0;
const BOTTOM: f64 = 34.0;

/// The chart of a workload as an SVG document; `None` if it was not measured.
pub(crate) fn svg(results: &Results, workload: Workload) -> Option<String> {
    let cells: Vec<&Cell> = results.of(workload).collect();
    let bars: Vec<(&Cell, f64)> = cells
        .into_iter()
        .filter_map(|cell| Some((cell, Spread::of(cell.rates())?.median)))
        .collect();
    let scale = Scale::over(bars.iter().map(|(_, median)| *median))?;
    let mut text = String::new();
    draw(&mut text, results, workload, &bars, scale).ok()?;
    Some(text)
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
        share * (WIDTH - LABELS - FIGURES)
    }

    fn grid(self) -> impl Iterator<Item = f64> {
        (self.first..=self.last).map(|power| 10_f64.powi(power))
    }
}

fn draw(
    out: &mut String,
    results: &Results,
    workload: Workload,
    bars: &[(&Cell, f64)],
    scale: Scale,
) -> fmt::Result {
    let cases = bars.chunk_by(|a, b| a.0.case == b.0.case);
    let height = TOP + cases.fold(0.0, |sum, case| sum + case_height(case.len())) + BOTTOM;
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{height}" fill="white"/>
<text x="16" y="26" font-size="16" font-weight="bold">{}</text>
<text x="16" y="46" fill="#666">{}; {}; longer is faster, logarithmic scale, medians</text>"##,
        workload.title(),
        axis(workload.unit()),
        escaped(&results.processor),
    )?;
    for value in scale.grid() {
        let x = LABELS + scale.length(value);
        let (top, foot, label) = (TOP, height - BOTTOM, mark(workload.unit(), value));
        writeln!(
            out,
            r##"<line x1="{x:.1}" y1="{top}" x2="{x:.1}" y2="{foot}" stroke="#ddd"/>
<text x="{x:.1}" y="{:.1}" text-anchor="middle" fill="#666">{label}</text>"##,
            foot + 16.0,
        )?;
    }
    let mut y = TOP;
    for case in bars.chunk_by(|a, b| a.0.case == b.0.case) {
        writeln!(
            out,
            r#"<text x="16" y="{:.1}" font-weight="bold">{}</text>"#,
            y + 18.0,
            escaped(&case[0].0.case)
        )?;
        for (index, (cell, median)) in case.iter().enumerate() {
            let top = y + 24.0 + index as f64 * (BAR + GAP);
            bar(out, results, cell, *median, scale, top)?;
        }
        y += case_height(case.len());
    }
    writeln!(out, "</svg>")
}

fn case_height(bars: usize) -> f64 {
    bars as f64 * (BAR + GAP) + CASE_GAP
}

fn bar(
    out: &mut String,
    results: &Results,
    cell: &Cell,
    median: f64,
    scale: Scale,
    top: f64,
) -> fmt::Result {
    let (length, foot) = (scale.length(median), top + BAR - 5.0);
    let mut figure = rate(cell.workload.unit(), median);
    let reference = results.cell(cell.workload, &cell.case, UNIX);
    let ratio = reference.and_then(|unix| Spread::of_ratios(&cell.rates(), &unix.rates()));
    if let Some(ratio) = ratio.filter(|_| cell.row != UNIX) {
        write!(figure, " ({} x)", digits(ratio.median))?;
    }
    writeln!(
        out,
        r#"<text x="{:.1}" y="{foot:.1}" text-anchor="end">{}</text>
<rect x="{LABELS}" y="{top:.1}" width="{length:.1}" height="{BAR}" fill="{}"/>
<text x="{:.1}" y="{foot:.1}">{figure}</text>"#,
        LABELS - 6.0,
        escaped(&cell.row),
        colour(&cell.row),
        LABELS + length + 6.0,
    )
}

/// Ours, the limits, and the peers, told apart also without colours: by their order.
fn colour(row: &str) -> &'static str {
    match row {
        ours if ours.starts_with("vsock-inner") => "#0b6e4f",
        limit if limit.starts_with("bare") || limit.starts_with("two") => "#c9c9c9",
        _ => "#5b8cc0",
    }
}

fn axis(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "MB/s",
        Unit::Operations => "operations per second",
    }
}

fn mark(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => format!("{}", value / 1e6),
        Unit::Operations => format!("{value}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
