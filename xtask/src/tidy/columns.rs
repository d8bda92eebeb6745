// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines of Rust files have a maximum width. `cargo fmt` breaks most lines, but not comments,
//! strings or macros. A raw string and a row of a table cannot continue on the next line.

use super::tree::{Finding, Tree};

/// The maximum number of characters in a line.
const LIMIT: usize = 100;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".rs")) {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LIMIT && !is_whole(line) {
                let text = format!("{columns} columns, expected at most {LIMIT}");
                findings.push(Finding::at(&file.path, index + 1, text));
            }
        }
    }
    findings
}

/// Returns whether the line cannot be split.
fn is_whole(line: &str) -> bool {
    let comment = line.trim_start();
    let row = comment.starts_with("/// |") || comment.starts_with("//! |");
    row || ["r\"", "r#\"", "r##\""]
        .iter()
        .any(|start| line.contains(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(line: &str) -> Vec<Finding> {
        check(&Tree::new([("a.rs", format!("\n{line}\n"))]))
    }

    #[test]
    fn a_line_of_a_hundred_characters_fits() {
        assert_eq!(findings(&"ä".repeat(LIMIT)), []);
    }

    #[test]
    fn a_longer_line_is_found() {
        let text = "101 columns, expected at most 100";
        let line = format!("// {}", "a".repeat(LIMIT - 2));
        assert_eq!(findings(&line), [Finding::at("a.rs", 2, text)]);
    }

    #[test]
    fn a_raw_string_and_a_row_of_a_table_may_be_longer() {
        assert_eq!(findings(&format!("r#\"{}", "a".repeat(LIMIT))), []);
        assert_eq!(findings(&format!("    /// | {}", "a".repeat(LIMIT))), []);
    }
}
