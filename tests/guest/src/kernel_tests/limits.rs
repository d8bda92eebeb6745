// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests that cannot pass on a kernel, and why.

use super::table::Verdict;

/// A test that fails for a known reason.
struct Limit {
    test: &'static str,
    /// Applies to kernels before this one, or to all kernels if `None`.
    before: Option<(u32, u32)>,
    reason: &'static str,
}

impl Limit {
    const fn before(kernel: (u32, u32), test: &'static str, reason: &'static str) -> Self {
        let before = Some(kernel);
        Self {
            test,
            before,
            reason,
        }
    }
}

/// Limits of older kernels.
const NO_MEMORY: &str = "the kernel reports ENOMEM for every error";
const NO_SIGNAL: &str = "the kernel sends no SIGPIPE";
const NO_ZEROCOPY: &str = "the kernel has no MSG_ZEROCOPY for vsock";
const NO_CREDIT: &str = "the kernel sends no credit update while its reader waits for more bytes";
const NO_RETRY: &str = "the kernel refuses a second connect after a failed one";
const NO_PEEK: &str = "the kernel has no MSG_PEEK for messages";

const LIMITS: &[Limit] = &[
    Limit::before((6, 4), "SOCK_SEQPACKET invalid receive buffer", NO_MEMORY),
    Limit::before((6, 4), "SOCK_SEQPACKET big message", NO_MEMORY),
    Limit::before((6, 4), "SOCK_STREAM test invalid buffer", NO_MEMORY),
    Limit::before((6, 4), "SOCK_SEQPACKET test invalid buffer", NO_MEMORY),
    Limit::before((6, 6), "SOCK_SEQPACKET MSG_PEEK", NO_PEEK),
    Limit::before((6, 7), "SOCK_STREAM SHUT_WR", NO_SIGNAL),
    Limit::before((6, 7), "SOCK_STREAM SHUT_RD", NO_SIGNAL),
    Limit::before((6, 7), "SOCK_STREAM MSG_ZEROCOPY", NO_ZEROCOPY),
    Limit::before((6, 7), "SOCK_SEQPACKET MSG_ZEROCOPY", NO_ZEROCOPY),
    Limit::before(
        (6, 7),
        "SOCK_STREAM MSG_ZEROCOPY leak MSG_ERRQUEUE",
        NO_ZEROCOPY,
    ),
    Limit::before(
        (6, 7),
        "SOCK_STREAM MSG_ZEROCOPY leak completion skb",
        NO_ZEROCOPY,
    ),
    Limit::before(
        (6, 7),
        "SOCK_STREAM virtio MSG_ZEROCOPY coalescence corruption",
        NO_ZEROCOPY,
    ),
    Limit::before(
        (6, 8),
        "SOCK_STREAM virtio credit update + SO_RCVLOWAT",
        NO_CREDIT,
    ),
    Limit::before(
        (6, 8),
        "SOCK_STREAM virtio credit update + low rx_bytes",
        NO_CREDIT,
    ),
    Limit::before(
        (6, 7),
        "SOCK_STREAM accept()ed socket custom setsockopt()",
        NO_ZEROCOPY,
    ),
    Limit::before((6, 12), "SOCK_STREAM retry failed connect()", NO_RETRY),
];

/// Classifies a test's result.
pub(super) fn judge(test: &str, release: &str, result: anyhow::Result<Vec<String>>) -> Verdict {
    let error = match result {
        Ok(notes) => return Verdict::Passed(notes.join(" | ")),
        Err(error) => format!("{error:#}"),
    };
    let kernel = version(release);
    let applies = |before| kernel.is_some_and(|kernel| kernel < before);
    let known = LIMITS
        .iter()
        .find(|limit| limit.test == test && limit.before.is_none_or(applies));
    match known {
        Some(limit) => Verdict::CannotPass {
            reason: limit.reason,
            error,
        },
        None => Verdict::Failed(error),
    }
}

/// Returns the first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::{LIMITS, judge, version};
    use crate::kernel_tests::table::Verdict;

    #[test]
    fn a_failure_without_a_known_reason_counts() {
        let failed = judge("SOCK_STREAM bind only", "7.3.4-cloud", Err(anyhow!("why")));
        assert_eq!(failed, Verdict::Failed("why".to_owned()));
    }

    #[test]
    fn a_known_reason_does_not_hide_a_pass() {
        for limit in LIMITS {
            let passed = judge(
                limit.test,
                "5.0.0",
                Ok(vec!["a".to_owned(), "b".to_owned()]),
            );
            assert_eq!(passed, Verdict::Passed("a | b".to_owned()));
        }
    }

    #[test]
    fn a_reason_holds_for_its_own_kernels_only() {
        for limit in LIMITS {
            let old = judge(limit.test, "5.0.0-cloud", Err(anyhow!("why")));
            assert!(matches!(old, Verdict::CannotPass { .. }), "{old:?}");
            let new = judge(limit.test, "99.0.0-cloud", Err(anyhow!("why")));
            let fails = matches!(new, Verdict::Failed(_));
            assert_eq!(fails, limit.before.is_some(), "{new:?}");
        }
    }

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.12.3+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("7.3"), Some((7, 3)));
        assert_eq!(version("next"), None);
    }
}
