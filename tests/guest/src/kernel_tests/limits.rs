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
