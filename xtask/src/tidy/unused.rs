// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A dependency of a manifest is used by the package's sources.
//!
//! The rule reads names and does not compile anything. So it cannot tell which dependency of two a
//! name means, and code under `cfg` counts. A dependency for tests may also be used in the examples
//! of comments and pages.

use super::tree::{Dependency, Finding, Package, Tree};
use crate::source::is_named;

/// What no source names, as (package, dependency): the package uses its features or its symbols.
const SILENT: &[(&str, &str)] = &[];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &tree.packages {
        for dependency in &package.dependencies {
            let silent = SILENT.contains(&(&package.name, &dependency.name));
            let used = is_used(tree, package, dependency);
            let place = format!("{}/Cargo.toml", package.directory);
            let name = &dependency.name;
            let text = match (used, silent) {
                (false, false) => format!("no source uses `{name}`; remove the dependency"),
                (true, true) => format!("`{name}` is used; remove it from the rule's exceptions"),
                _ => continue,
            };
            findings.push(Finding::new(place, text));
        }
    }
    findings
}

fn is_used(tree: &Tree, package: &Package, dependency: &Dependency) -> bool {
    let ours = |path: &str| belongs(tree, package, path);
    let name = dependency.import.as_str();
    let in_code = tree
        .sources
        .iter()
        .filter(|source| ours(&source.path))
        .flat_map(|source| &source.lines)
        .any(|line| line.names(name) || (dependency.dev && is_named(&line.comment, name)));
    // The pages of the repository are examples of one package, which includes them.
    let pages = || tree.files.iter().filter(|file| file.path.ends_with(".md"));
    in_code
        || dependency.dev
            && pages().any(|file| {
                (ours(&file.path) || package.name == "vsock-pages") && is_named(&file.text, name)
            })
}

/// Whether a file is in the package's directory, and not in that of a package inside it.
fn belongs(tree: &Tree, package: &Package, path: &str) -> bool {
    let inside = |directory: &str| {
        path.strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let deeper = |other: &Package| {
        other.directory.len() > package.directory.len() && inside(&other.directory)
    };
    inside(&package.directory) && !tree.packages.iter().any(deeper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)], dev: bool) -> usize {
        let log = Dependency {
            name: "a-log".to_owned(),
            import: "a_log".to_owned(),
            dev,
            ..Dependency::default()
        };
        let package = |directory: &str, dependencies: &[Dependency]| Package {
            name: directory.to_owned(),
            directory: directory.to_owned(),
            dependencies: dependencies.to_vec(),
            ..Package::default()
        };
        let tree = Tree {
            packages: vec![package("t", &[log]), package("t/inner", &[])],
            ..Tree::new(files.iter().copied())
        };
        check(&tree).len()
    }

    #[test]
    fn a_dependency_that_code_names_is_fine() {
        assert_eq!(findings(&[("t/src/a.rs", "use a_log::Log;\n")], false), 0);
    }

    #[test]
    fn one_that_only_a_comment_a_string_or_another_package_names_is_found() {
        let files = [
            ("t/src/a.rs", "// a_log\nlet x = \"a_log\"; my_a_log();\n"),
            ("t/inner/src/a.rs", "use a_log::Log;\n"),
            ("tt/src/a.rs", "use a_log::Log;\n"),
        ];
        assert_eq!(findings(&files, false), 1);
    }

    #[test]
    fn an_example_uses_a_dependency_for_tests() {
        let files = [("t/src/a.rs", "/// a_log::log();\nfn f() {}\n")];
        assert_eq!(findings(&files, true), 0);
        assert_eq!(findings(&[("t/README.md", "use a_log;\n")], true), 0);
        assert_eq!(findings(&[("README.md", "use a_log;\n")], true), 1);
    }
}
