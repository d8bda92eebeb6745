// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;

use thiserror::Error;

/// Why a rule does not hold for a transport.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuleBreach {
    /// The transport does not keep the promise.
    #[error("expected {expected}, but {seen}")]
    Unmet {
        /// What the rule expects.
        expected: String,
        /// What happened instead.
        seen: String,
    },
    /// The rule is about something that the transport does not have.
    #[error("inapplicable: {0}")]
    Inapplicable(&'static str),
    /// A call that the check depends on failed.
    #[error("a call that the check depends on failed")]
    Io(#[from] io::Error),
}

impl RuleBreach {
    pub(crate) fn unmet(expected: impl fmt::Display, seen: impl fmt::Display) -> Self {
        Self::Unmet {
            expected: expected.to_string(),
            seen: seen.to_string(),
        }
    }

    /// Adds the steps that were taken before.
    pub(crate) fn after(self, done: impl fmt::Display) -> Self {
        match self {
            Self::Unmet { expected, seen } => Self::unmet(expected, format!("{seen}, {done}")),
            other => other,
        }
    }
}

/// The result of checking a rule.
pub type Verdict = Result<(), RuleBreach>;

/// Succeeds if the expectation holds, and fails with what was `seen` otherwise.
pub(crate) fn hold(is_so: bool, expected: impl fmt::Display, seen: impl fmt::Display) -> Verdict {
    if is_so {
        Ok(())
    } else {
        Err(RuleBreach::unmet(expected, seen))
    }
}

/// Checks that the bytes that were read are those that were written.
pub(crate) fn same(got: &[u8], sent: &[u8]) -> Verdict {
    hold(
        got == sent,
        "the bytes that were written",
        "other bytes arrived",
    )
}

/// Checks that a call transferred exactly `want` bytes.
pub(crate) fn count(what: impl fmt::Display, got: io::Result<usize>, want: usize) -> Verdict {
    match got {
        Ok(got) if got == want => Ok(()),
        got => Err(RuleBreach::unmet(
            format_args!("{what} to return Ok({want})"),
            format_args!("it returned {got:?}"),
        )),
    }
}

/// Checks that a call failed with `want`.
pub(crate) fn fails<T: fmt::Debug>(
    what: impl fmt::Display,
    got: io::Result<T>,
    want: io::ErrorKind,
) -> Verdict {
    match got {
        Err(error) if error.kind() == want => Ok(()),
        got => Err(RuleBreach::unmet(
            format_args!("{what} to fail with {want:?}"),
            format_args!("it returned {got:?}"),
        )),
    }
}

/// Checks that a call succeeded.
pub(crate) fn succeeds<T>(what: impl fmt::Display, got: io::Result<T>) -> Result<T, RuleBreach> {
    got.map_err(|error| {
        RuleBreach::unmet(
            format_args!("{what} to succeed"),
            format_args!("it failed: {error:?}"),
        )
    })
}
