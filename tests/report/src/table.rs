// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables for a terminal and for Markdown, and how their numbers are written.

use std::fmt;

use comfy_table::CellAlignment;
pub use comfy_table::Table;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};

/// Returns an empty Markdown table. All columns but the first two are aligned to the right.
#[must_use]
pub fn empty_table(header: &[&str]) -> Table {
    table(header, ASCII_MARKDOWN, 2)
}

fn table(header: &[&str], preset: &str, left: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_header(header);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table whose lines are in groups, for a terminal: a group's name has a line to itself, which
/// leaves the width to the figures.
#[derive(Debug)]
pub struct GroupedTable {
    table: Table,
    /// The name of each group, and the lines before it.
    groups: Vec<(String, usize)>,
}

impl GroupedTable {
    /// Returns an empty table. The first column is for what a group compares; it has no heading.
    /// Headings may contain line breaks.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let header: Vec<&str> = [""].iter().chain(headings).copied().collect();
        let mut table = table(&header, NOTHING, 1);
        // The names of groups are one step to the left of their lines.
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((if index == 0 { 2 } else { 1 }, 0));
        }
        Self {
            table,
            groups: Vec::new(),
        }
    }

    /// Begins a group.
    pub fn group(&mut self, name: &str) {
        self.groups.push((name.to_owned(), self.table.row_count()));
    }

    /// Adds a line to the last group.
    pub fn line(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells);
    }

    /// Returns whether no line was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.row_count() == 0
    }
}

impl fmt::Display for GroupedTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.table.lines().collect();
        let header = lines.len() - self.table.row_count();
        let mut groups = self.groups.iter().peekable();
        for (index, line) in lines.iter().enumerate() {
            while let Some((name, _)) = groups.next_if(|(_, before)| before + header == index) {
                writeln!(f, "{name}")?;
            }
            let end = if index + 1 < lines.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Returns three significant digits, or all digits before the point.
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
    use super::{GroupedTable, digits};

    #[test]
    fn three_digits_are_shown() {
        assert_eq!(digits(12345.6), "12346");
        assert_eq!(digits(12.345), "12.3");
        assert_eq!(digits(0.9876), "0.988");
        assert_eq!(digits(0.0), "0.00");
    }

    #[test]
    fn a_group_has_a_line_with_its_name() {
        let mut table = GroupedTable::new(&["rate\nMB/s"]);
        for group in ["first group, with a long name", "second"] {
            table.group(group);
            table.line(["a".to_owned(), "1".to_owned()]);
            table.line(["bcd".to_owned(), "20".to_owned()]);
        }
        let expected = "      rate\n      MB/s\nfirst group, with a long name\n  a      1\n  \
                        bcd   20\nsecond\n  a      1\n  bcd   20";
        assert_eq!(table.to_string(), expected);
    }
}
