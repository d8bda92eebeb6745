// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Figures as people say them.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use crate::stats::Spread;

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Bytes carried.
    Bytes,
    /// Operations done.
    Operations,
}

/// A rate as people say it: bytes per second, or time per operation.
#[must_use]
pub fn rate(unit: Unit, per_second: f64) -> String {
    match unit {
        Unit::Bytes => format!("{} MB/s", digits(per_second / 1e6)),
        Unit::Operations if per_second > 1e6 => format!("{} ns", digits(1e9 / per_second)),
        Unit::Operations => format!("{} us", digits(1e6 / per_second)),
    }
}

/// The median, and how far the rounds lie apart.
#[must_use]
pub fn ratio(spread: Spread) -> String {
    let [least, median, most] = [spread.least, spread.median, spread.most].map(digits);
    format!("{median} x ({least} .. {most})")
}

/// Three significant digits, or as many as stand before the point.
#[must_use]
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A table in the form that a Markdown file takes, its numbers at the right.
#[must_use]
pub fn empty(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{Unit, digits, rate};

    #[test]
    fn three_digits_are_enough() {
        assert_eq!(digits(12345.6), "12346");
        assert_eq!(digits(12.345), "12.3");
        assert_eq!(digits(0.9876), "0.988");
        assert_eq!(digits(0.0), "0.00");
    }

    #[test]
    fn short_operations_are_told_in_nanoseconds() {
        assert_eq!(rate(Unit::Operations, 5e6), "200 ns");
        assert_eq!(rate(Unit::Operations, 1e5), "10.0 us");
        assert_eq!(rate(Unit::Bytes, 2.5e9), "2500 MB/s");
    }
}
