// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which crate may depend on which. Nothing points the other way.

use super::tree::{Finding, Tree};

/// Each library crate with the crates of this repository that it may point to; it may also point to
/// whatever those point to.
const ARROWS: &[(&str, &[&str])] = &[
    ("vsock-backend-api", &[]),
    ("vsock-proto", &[]),
    ("vsock-inner", &["vsock-backend-api"]),
    ("vsock-muxer", &["vsock-proto", "vsock-backend-api"]),
    ("vsock-epoll", &["vsock-backend-api", "vsock-muxer"]),
    ("vsock-muxer-harness", &["vsock-muxer", "vsock-backend-api"]),
    ("vsock-virtio", &["vsock-muxer"]),
    (
        "vsock-vhost-user",
        &["vsock-virtio", "vsock-epoll", "vsock-inner"],
    ),
];

/// The crate that nothing from outside may be added to.
const BARE: &str = "vsock-backend-api";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in tree.packages.iter().filter(|package| package.library) {
        if !ARROWS.iter().any(|(name, _)| *name == package.name) {
            findings.push(Finding::new(
                &package.name,
                "a crate without a line in the table of arrows",
            ));
        }
        // A test may look at any crate below or beside its own.
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| !dependency.dev)
        {
            if dependency.local && !may_point(&package.name, &dependency.name) {
                findings.push(Finding::new(
                    &package.name,
                    format!("must not depend on {}", dependency.name),
                ));
            }
            if !dependency.local && package.name == BARE {
                findings.push(Finding::new(
                    &package.name,
                    format!("has no dependencies, but {}", dependency.name),
                ));
            }
        }
    }
    findings
}

/// Whether a chain of arrows leads from one crate to the other.
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
    use crate::tidy::tree::{Dependency, Package};

    fn findings(from: &str, to: &str, dev: bool, local: bool) -> usize {
        let dependencies = vec![Dependency {
            name: to.to_owned(),
            dev,
            local,
        }];
        let packages = vec![Package {
            name: from.to_owned(),
            library: from != "xtask",
            dependencies,
        }];
        check(&Tree {
            packages,
            ..Tree::default()
        })
        .len()
    }

    #[test]
    fn arrows_point_down_and_may_skip_a_step() {
        assert_eq!(findings("vsock-inner", "vsock-backend-api", false, true), 0);
        assert_eq!(findings("vsock-vhost-user", "vsock-proto", false, true), 0);
        assert_eq!(findings("xtask", "vsock-inner", false, true), 0);
    }

    #[test]
    fn an_arrow_that_points_up_is_found() {
        assert_eq!(findings("vsock-backend-api", "vsock-inner", false, true), 1);
        assert_eq!(findings("vsock-inner", "vsock-tests", false, true), 1);
    }

    #[test]
    fn tests_may_look_around() {
        assert_eq!(
            findings("vsock-inner", "vsock-muxer-harness", true, true),
            0
        );
    }

    #[test]
    fn the_seam_takes_nothing_from_outside() {
        assert_eq!(findings("vsock-backend-api", "log", false, false), 1);
        assert_eq!(findings("vsock-inner", "log", false, false), 0);
    }

    #[test]
    fn an_unknown_crate_is_found() {
        assert_eq!(findings("vsock-new", "log", false, false), 1);
    }
}
