// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tests that cannot pass, and why.

use super::table::Verdict;

/// A test that fails for a reason that is not the device's.
struct Limit {
    test: &'static str,
    /// On kernels before this one.
    before: (u32, u32),
    reason: &'static str,
}

const LIMITS: &[Limit] = &[];

/// What is to be said of a test's result.
pub(super) fn judge(test: &str, release: &str, result: anyhow::Result<Vec<String>>) -> Verdict {
    let error = match result {
        Ok(notes) => return Verdict::Passed(notes.join(" | ")),
        Err(error) => format!("{error:#}"),
    };
    let kernel = version(release);
    let known = LIMITS
        .iter()
        .find(|limit| limit.test == test && kernel.is_some_and(|kernel| kernel < limit.before));
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
