// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Each memory ordering has a comment that justifies it and names its partner.

use super::tree::{Finding, Tree};

/// The names of memory orderings. Those of `std::cmp` are different.
const NAMES: &[&str] = &["Relaxed", "Acquire", "Release", "AcqRel", "SeqCst"];

/// The maximum number of lines of code between an ordering and its comment.
const REACH: usize = 4;

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.library_sources() {
        let mut import = false;
        for (number, line) in source.production_lines() {
            import = import || line.code.trim_start().starts_with("use ");
            if import {
                // The next check does not see an ordering that is imported by itself.
                if NAMES.iter().any(|name| line.names(name)) || line.code.contains("Ordering::*") {
                    findings.push(Finding::at(
                        &source.path,
                        number,
                        "import `Ordering` instead of its variants",
                    ));
                }
                import = !line.code.contains(';');
            } else if NAMES
                .iter()
                .any(|name| line.code.contains(&format!("Ordering::{name}")))
                && !source
                    .comments_near(number, REACH)
                    .any(|comment| comment.contains("ORDER:"))
            {
                findings.push(Finding::at(
                    &source.path,
                    number,
                    "this ordering needs a comment `// ORDER:` that names its partner",
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> usize {
        check(&Tree::new([("crates/a/src/a.rs", text)])).len()
    }

    #[test]
    fn an_explained_ordering_is_accepted() {
        assert_eq!(
            findings(
                "use std::sync::atomic::{AtomicBool, Ordering};\n\
                 // ORDER: pairs with `b`.\na.load(Ordering::Acquire);\n"
            ),
            0
        );
        assert_eq!(
            findings("a.load(Ordering::Acquire) // ORDER: pairs with `b`.\n"),
            0
        );
    }

    #[test]
    fn an_unexplained_ordering_is_found() {
        assert_eq!(findings("// Not argued.\na.load(Ordering::Acquire);\n"), 1);
        assert_eq!(
            findings(&format!(
                "// ORDER: far.\n{}a.load(Ordering::Acquire);\n",
                "b();\n".repeat(5)
            )),
            1
        );
    }

    #[test]
    fn comparing_is_not_a_memory_ordering() {
        assert_eq!(findings("a.cmp(b) == Ordering::Less;\n"), 0);
    }

    #[test]
    fn bare_orderings_are_found() {
        assert_eq!(
            findings("use std::sync::atomic::Ordering::{\n    Acquire,\n};\n"),
            1
        );
        assert_eq!(findings("use std::sync::atomic::Ordering::*;\n"), 1);
    }
}
