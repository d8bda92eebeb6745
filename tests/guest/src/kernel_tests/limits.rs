// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests that cannot pass, and why.

use super::table::Verdict;

/// A test that fails for a known reason.
struct Limit {
    test: &'static str,
    /// On kernels before this one; on all of them if none.
    before: Option<(u32, u32)>,
    reason: &'static str,
}

const LIMITS: &[Limit] = &[Limit {
    test: "SOCK_STREAM TX credit bounds",
    before: None,
    reason: "the devices between the guests take bytes that the other guest has not read, up to \
             their own bound, and give the sender credit for them",
}];

/// What is to be said of a test's result.
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

/// The first two numbers of a kernel's release.
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
    fn a_failure_without_a_known_reason_is_one() {
        let failed = judge("SOCK_STREAM bind only", "7.3.4-cloud", Err(anyhow!("why")));
        assert_eq!(failed, Verdict::Failed("why".to_owned()));
    }

    #[test]
    fn a_test_that_passes_has_passed_whatever_is_known_of_it() {
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
    fn a_reason_holds_for_the_kernels_that_it_is_of() {
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
