// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The head of a file: its licence, and documentation that rustdoc can find.

use super::tree::{Finding, Tree};
use crate::source::{Line, Source};

/// The first line of every Rust file.
const LICENCE: &str = "// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        if source
            .lines
            .first()
            .is_none_or(|line| line.comment != LICENCE)
        {
            findings.push(Finding::at(
                &source.path,
                1,
                format!("the first line is not `{LICENCE}`"),
            ));
        }
        if let Some(line) = lost_documentation(source) {
            findings.push(Finding::at(
                &source.path,
                line,
                "`///` before `use` or `mod`, which rustdoc drops; write `//!`",
            ));
        }
    }
    findings
}

/// Returns the number of the first line of code, if it is a documented import or a documented
/// module without a body.
fn lost_documentation(source: &Source) -> Option<usize> {
    let (number, line) = source
        .numbered()
        .find(|(_, line)| line.has_code() && !line.code.starts_with("#!["))?;
    let above = number.checked_sub(2).map(|index| &source.lines[index])?;
    let documented = is_outer_doc(above);
    let head = line.code.trim();
    let empty = head.starts_with("use ") || (head.ends_with(';') && line.names("mod"));
    (documented && empty).then_some(number)
}

fn is_outer_doc(line: &Line) -> bool {
    line.comment.starts_with("///") && !line.comment.starts_with("////")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        check(&Tree::new([("a.rs", text)]))
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn a_valid_head_is_accepted() {
        assert_eq!(
            findings(&format!(
                "{LICENCE}\n\n//! Good.\n\nuse std::io;\n\n/// Good.\npub mod a;\n"
            )),
            [""; 0]
        );
    }

    #[test]
    fn a_missing_licence_is_found() {
        assert_eq!(findings("//! Bad.\n"), ["a.rs:1"]);
        assert_eq!(
            findings(&format!("{}\n", LICENCE.replace("OR", "or"))),
            ["a.rs:1"]
        );
    }

    #[test]
    fn documentation_of_an_import_is_found() {
        assert_eq!(
            findings(&format!("{LICENCE}\n/// Lost.\nuse std::io;\n")),
            ["a.rs:3"]
        );
        assert_eq!(
            findings(&format!("{LICENCE}\n#![no_std]\n/// Lost.\nmod a;\n")),
            ["a.rs:4"]
        );
    }
}
