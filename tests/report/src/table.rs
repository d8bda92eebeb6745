// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables, and how numbers stand in them.

use comfy_table::CellAlignment;
pub use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

/// A table in the form that a Markdown file takes, its numbers at the right: all columns but two.
#[must_use]
pub fn empty_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn three_digits_are_enough() {
        assert_eq!(digits(12345.6), "12346");
        assert_eq!(digits(12.345), "12.3");
        assert_eq!(digits(0.9876), "0.988");
        assert_eq!(digits(0.0), "0.00");
    }
}
