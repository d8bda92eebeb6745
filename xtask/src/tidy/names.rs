// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! No two public types of the library crates share a name: a user who imports both has to rename
//! one.

use std::collections::BTreeMap;

use super::tree::{Finding, Tree};

/// The words that begin a type after `pub`.
const KINDS: &[&str] = &["struct", "enum", "trait", "type", "union"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    let mut findings = Vec::new();
    for source in tree.library_sources() {
        for (number, line) in source.production_lines() {
            let Some(name) = public_type(&line.code) else {
                continue;
            };
            let place = format!("{}:{number}", source.path);
            if let Some(other) = first.get(name) {
                let text = format!("`{name}` is also a public type in {other}; rename one of them");
                findings.push(Finding::new(place, text));
            } else {
                first.insert(name, place);
            }
        }
    }
    findings
}

/// Returns the name of the public type that begins on a line.
fn public_type(code: &str) -> Option<&str> {
    let rest = code.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let (kind, rest) = rest.split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    KINDS
        .contains(&kind)
        .then(|| &rest[..end.unwrap_or(rest.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(a: &str, b: &str) -> Vec<String> {
        let tree = Tree::new([("crates/a/src/lib.rs", a), ("crates/b/src/b.rs", b)]);
        check(&tree)
            .into_iter()
            .map(|finding| finding.place)
            .collect()
    }

    #[test]
    fn two_public_types_with_one_name_are_found() {
        let b = "mod m {\n    pub unsafe trait Limits: Send {}\n}\n";
        assert_eq!(
            findings("pub struct Limits<T>(T);\n", b),
            ["crates/b/src/b.rs:2"]
        );
        assert_eq!(
            findings("pub enum E {\n}\n", "pub type E = u8;\n"),
            ["crates/b/src/b.rs:1"]
        );
    }

    #[test]
    fn private_types_re_exports_and_functions_may_share_a_name() {
        assert_eq!(
            findings("pub struct Limits;\n", "pub(crate) struct Limits;\n"),
            [""; 0]
        );
        assert_eq!(
            findings("pub struct Limits;\n", "pub use a::Limits;\n"),
            [""; 0]
        );
        assert_eq!(
            findings("pub fn limits() {}\n", "pub mod limits;\n"),
            [""; 0]
        );
    }
}
