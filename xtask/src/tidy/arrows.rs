// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which crate may depend on which other crate. No dependency points the other way.

use super::tree::{Dependency, Finding, Tree};

/// Each library crate, with the crates of this repository that it may depend on. It may also depend
/// on the dependencies of those.
const ARROWS: &[(&str, &[&str])] = &[
    ("vsock-backend-api", &[]),
    ("vsock-proto", &[]),
    ("vsock-compliance", &["vsock-backend-api"]),
    ("vsock-inner", &["vsock-backend-api"]),
    ("vsock-siblings", &["vsock-inner"]),
    ("vsock-sockets", &["vsock-backend-api"]),
    ("vsock-tokio", &["vsock-inner"]),
    ("vsock-muxer", &["vsock-proto", "vsock-backend-api"]),
    ("vsock-epoll", &["vsock-backend-api", "vsock-muxer"]),
    ("vsock-muxer-harness", &["vsock-muxer", "vsock-compliance"]),
    ("vsock-virtio", &["vsock-muxer"]),
    (
        "vsock-vhost-user",
        &[
            "vsock-virtio",
            "vsock-epoll",
            "vsock-inner",
            "vsock-siblings",
            "vsock-sockets",
        ],
    ),
];

/// The crates that make no system calls, with every external crate that they may depend on. In
/// `vsock-backend-api`, the code that makes system calls needs a feature.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("vsock-backend-api", &["vm-memory", "rustix"]),
    ("vsock-proto", &["thiserror"]),
    ("vsock-muxer", &["serde", "thiserror"]),
    (
        "vsock-virtio",
        &[
            "serde",
            "smallvec",
            "thiserror",
            "virtio-queue",
            "vm-memory",
        ],
    ),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.packages.iter().filter(|package| package.library) {
        let name = &package.name;
        if !ARROWS.iter().any(|(known, _)| known == name) {
            let text = "this crate has no row in the table of xtask/src/tidy/arrows.rs; add one";
            findings.push(Finding::new(name, text));
        }
        let complaints = package
            .dependencies
            .iter()
            .filter_map(|to| complaint(name, to));
        findings.extend(complaints.map(|text| Finding::new(name, text)));
    }
    findings
}

/// Returns the error in a dependency, if there is one.
fn complaint(from: &str, to: &Dependency) -> Option<String> {
    let name = &to.name;
    match (to.local, to.dev) {
        (true, false) if !may_point(from, name) => Some(format!("must not depend on {name}")),
        // Tests may use any crate. But a dependency with a version must be published first, so two
        // crates that wait for each other could never be published.
        (true, true) if to.versioned && may_point(name, from) => Some(format!(
            "must not name a version of {name}, which depends on it"
        )),
        (false, false) => {
            let (_, allowed) = OUTSIDE.iter().find(|(of, _)| *of == from)?;
            let text =
                format!("must not depend on {name}: its table in arrows.rs does not list it");
            (!allowed.contains(&name.as_str())).then_some(text)
        }
        _ => None,
    }
}

/// Returns whether a chain of arrows leads from one crate to the other.
fn may_point(from: &str, to: &str) -> bool {
    let next = ARROWS
        .iter()
        .find(|(name, _)| *name == from)
        .map_or(&[][..], |(_, next)| *next);
    next.iter().any(|name| *name == to || may_point(name, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::Package;

    fn outside() -> Dependency {
        Dependency {
            name: String::new(),
            dev: false,
            local: false,
            versioned: true,
        }
    }

    fn local() -> Dependency {
        Dependency {
            local: true,
            ..outside()
        }
    }

    fn for_tests() -> Dependency {
        Dependency {
            dev: true,
            ..local()
        }
    }

    fn findings(from: &str, to: &str, mut dependency: Dependency) -> usize {
        dependency.name = to.to_owned();
        let package = Package {
            name: from.to_owned(),
            library: from != "xtask",
            dependencies: vec![dependency],
        };
        check(&Tree {
            packages: vec![package],
            ..Tree::default()
        })
        .len()
    }

    #[test]
    fn arrows_point_down_and_may_skip_a_layer() {
        let by_path = Dependency {
            versioned: false,
            ..for_tests()
        };
        for (from, to, dependency, found) in [
            ("vsock-inner", "vsock-backend-api", local(), 0),
            ("vsock-vhost-user", "vsock-proto", local(), 0),
            ("xtask", "vsock-inner", local(), 0),
            ("vsock-backend-api", "vsock-inner", local(), 1),
            ("vsock-inner", "vsock-tests", local(), 1),
            // Tests may use any crate, unless two crates then wait for each other.
            ("vsock-inner", "vsock-muxer-harness", for_tests(), 0),
            ("vsock-muxer", "vsock-muxer-harness", for_tests(), 1),
            ("vsock-muxer", "vsock-muxer-harness", by_path, 0),
            ("vsock-new", "log", outside(), 1),
        ] {
            assert_eq!(findings(from, to, dependency), found, "{from}, {to}");
        }
    }

    #[test]
    fn crates_without_system_calls_use_only_listed_dependencies() {
        for (from, to, found) in [
            ("vsock-backend-api", "log", 1),
            ("vsock-backend-api", "vm-memory", 0),
            ("vsock-inner", "log", 0),
            ("vsock-proto", "libc", 1),
            ("vsock-muxer", "libc", 1),
            ("vsock-virtio", "libc", 1),
            ("vsock-virtio", "thiserror", 0),
        ] {
            assert_eq!(findings(from, to, outside()), found, "{from}, {to}");
        }
    }
}
