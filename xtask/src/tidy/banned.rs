// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names that a crate must not know: that is how a core stays without descriptors, clock and locks.

use super::tree::{Finding, Tree};

const DESCRIPTORS: &[&str] = &[
    "RawFd",
    "AsRawFd",
    "OwnedFd",
    "AsFd",
    "BorrowedFd",
    "FromRawFd",
    "IntoRawFd",
];
const SYSTEM: &[&str] = &[
    "libc",
    "rustix",
    "nix",
    "EventFd",
    "Epoll",
    "epoll_wait",
    "vmm_sys_util",
];
const CLOCK: &[&str] = &["Instant", "SystemTime"];
const LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar", "Once", "OnceLock"];

/// What puts a thread to sleep for a while of its own choice.
const SLEEPS: &[&str] = &["sleep", "sleep_ms", "sleep_until", "usleep", "nanosleep"];

/// What each place must not name.
const BANS: &[(&str, &[&[&str]])] = &[
    ("crates/vsock-backend-api/src/", &[SYSTEM, CLOCK, LOCKS]),
    (
        "crates/vsock-proto/src/",
        &[DESCRIPTORS, SYSTEM, CLOCK, LOCKS],
    ),
    // It names descriptors, to say which one a driver shall watch.
    ("crates/vsock-muxer/src/", &[SYSTEM, CLOCK, LOCKS]),
    ("crates/vsock-virtio/src/", &[DESCRIPTORS, SYSTEM, CLOCK]),
];

/// The one place of the seam that asks the system, behind a feature.
const EXEMPT: &str = "crates/vsock-backend-api/src/sockets/kernel.rs";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let bans = BANS
            .iter()
            .filter(|(place, _)| source.path.starts_with(place) && source.path != EXEMPT);
        let words: Vec<&str> = bans
            .flat_map(|(_, lists)| lists.iter().copied().flatten().copied())
            .collect();
        let ours = ["crates/", "tests/"]
            .iter()
            .any(|place| source.path.starts_with(place));
        for (number, line) in source.numbered() {
            for word in words.iter().filter(|word| line.names(word)) {
                findings.push(Finding::at(
                    &source.path,
                    number,
                    format!("this crate must not name `{word}`"),
                ));
            }
            if ours && SLEEPS.iter().any(|word| line.names(word)) {
                let text = "a sleep: wait with a deadline, or use virtual time";
                findings.push(Finding::at(&source.path, number, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> usize {
        check(&Tree::new([(path, text)])).len()
    }

    #[test]
    fn a_clock_in_a_core_is_found() {
        assert_eq!(
            findings(
                "crates/vsock-proto/src/timers.rs",
                "use std::time::Instant;\n"
            ),
            1
        );
        assert_eq!(
            findings(
                "crates/vsock-muxer/src/muxer.rs",
                "struct Muxer(Mutex<()>);\n"
            ),
            1
        );
    }

    #[test]
    fn a_name_in_a_comment_is_no_use_of_it() {
        assert_eq!(
            findings(
                "crates/vsock-proto/src/timers.rs",
                "// No Instant here.\nuse core::time::Duration;\n"
            ),
            0
        );
    }

    #[test]
    fn a_muxer_may_name_a_descriptor_and_a_core_may_not() {
        assert_eq!(
            findings("crates/vsock-muxer/src/action.rs", "fd: RawFd,\n"),
            0
        );
        assert_eq!(
            findings("crates/vsock-proto/src/conn.rs", "fd: RawFd,\n"),
            1
        );
    }

    #[test]
    fn a_sleep_is_found_in_crates_and_tests() {
        assert_eq!(
            findings("tests/suite/main.rs", "std::thread::sleep(d);\n"),
            1
        );
        assert_eq!(
            findings("crates/vsock-inner/src/wait.rs", "thread::sleep(d);\n"),
            1
        );
        assert_eq!(findings("xtask/src/main.rs", "thread::sleep(d);\n"), 0);
    }
}
