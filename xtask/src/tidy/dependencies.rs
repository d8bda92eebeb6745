// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every external dependency has a line in `docs/dependencies.md` that gives its purpose.

use std::collections::BTreeSet;

use super::tree::{Finding, Tree};

const LIST: &str = "docs/dependencies.md";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let all = tree
        .packages
        .iter()
        .flat_map(|package| &package.dependencies);
    let used: BTreeSet<&str> = all
        .filter(|dependency| !dependency.local)
        .map(|dependency| dependency.name.as_str())
        .collect();
    let listed: BTreeSet<&str> = tree
        .text(LIST)
        .unwrap_or_default()
        .lines()
        .filter_map(listed)
        .collect();
    let unlisted = used
        .difference(&listed)
        .map(|name| Finding::new(LIST, format!("has no line for `{name}`")));
    let unused = listed
        .difference(&used)
        .map(|name| Finding::new(LIST, format!("lists `{name}`, which no manifest names")));
    unlisted.chain(unused).collect()
}

/// Returns the name of the crate that a line of the table describes.
fn listed(line: &str) -> Option<&str> {
    Some(line.strip_prefix("| `")?.split_once('`')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::{Dependency, Package};

    fn findings(list: &str) -> Vec<String> {
        let log = Dependency {
            name: "log".to_owned(),
            dev: false,
            local: false,
            versioned: true,
        };
        let own = Dependency {
            name: "vsock-inner".to_owned(),
            dev: false,
            local: true,
            versioned: true,
        };
        let packages = vec![Package {
            name: "a".to_owned(),
            library: true,
            dependencies: vec![log, own],
        }];
        let tree = Tree {
            packages,
            ..Tree::new([(LIST, list)])
        };
        check(&tree)
            .into_iter()
            .map(|finding| finding.text)
            .collect()
    }

    #[test]
    fn a_listed_dependency_is_accepted() {
        assert_eq!(
            findings("| crate | for |\n|---|---|\n| `log` | logging |\n"),
            [""; 0]
        );
    }

    #[test]
    fn an_unlisted_dependency_is_found() {
        assert_eq!(
            findings("The word `log` alone.\n"),
            ["has no line for `log`"]
        );
    }

    #[test]
    fn a_line_without_its_dependency_is_found() {
        assert_eq!(
            findings("| `log` | a |\n| `gone` | b |\n"),
            ["lists `gone`, which no manifest names"]
        );
    }
}
