// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The places and names of files.

use std::collections::BTreeSet;

use super::tree::{Finding, Tree};

/// The names that the root may contain, in addition to those that begin with a dot.
const TOP: &[&str] = &[
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-BSD-3-CLAUSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "crates",
    "deny.toml",
    "docs",
    "rustfmt.toml",
    "tests",
    "typos.toml",
    "xtask",
];

/// The directory of decision records.
const DECISIONS: &str = "docs/adr/";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let paths: Vec<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    let top: BTreeSet<&str> = paths
        .iter()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect();
    let strange = top
        .into_iter()
        .filter(|name| !name.starts_with('.') && !TOP.contains(name));
    strange
        .map(|name| {
            Finding::new(
                name,
                "is not in the list of names that the root may contain; move it into a directory",
            )
        })
        .chain(decisions(&paths))
        .collect()
}

/// Decision records are numbered from 0001 without gaps, and the number is in the title.
fn decisions(paths: &[&str]) -> Vec<Finding> {
    let mut names: Vec<&str> = paths
        .iter()
        .filter_map(|path| path.strip_prefix(DECISIONS))
        .collect();
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    names.sort_unstable();
    let wanted = |index: usize| format!("{:04}-", index + 1);
    names
        .iter()
        .enumerate()
        .filter(|(index, name)| !name.starts_with(&wanted(*index)))
        .map(|(index, name)| {
            Finding::new(
                format!("{DECISIONS}{name}"),
                format!("expected a name that begins with {}", wanted(index)),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(paths: &[&str]) -> Vec<String> {
        let tree = Tree::new(paths.iter().map(|path| (*path, "")));
        check(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn the_usual_files_are_accepted() {
        let paths = [
            "Cargo.toml",
            ".ci/run",
            ".gitignore",
            "crates/a/src/lib.rs",
            "docs/adr/0001-a.md",
        ];
        assert_eq!(findings(&paths), [""; 0]);
    }

    #[test]
    fn a_new_file_in_the_root_is_found() {
        assert_eq!(
            findings(&["notes.txt", "scripts/a.sh"]),
            ["notes.txt", "scripts"]
        );
    }

    #[test]
    fn missing_and_duplicate_decision_numbers_are_found() {
        assert_eq!(
            findings(&["docs/adr/0001-a.md", "docs/adr/0003-b.md"]),
            ["docs/adr/0003-b.md"]
        );
        assert_eq!(
            findings(&["docs/adr/0001-a.md", "docs/adr/0001-b.md"]),
            ["docs/adr/0001-b.md"]
        );
    }
}
