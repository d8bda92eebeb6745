// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;
use std::io;

use thiserror::Error;

/// Why a rule does not hold for a transport.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuleBreach {
    /// The transport does something else than the sentence says.
    #[error("expected {expected}, but {seen}")]
    Unmet {
        /// What the sentence makes one expect.
        expected: String,
        /// What happened instead.
        seen: String,
    },
    /// The sentence speaks of something that the transport does not have.
    #[error("inapplicable: {0}")]
    Inapplicable(&'static str),
    /// A call that the check needs failed on the way.
    #[error("a call failed that the check needs")]
    Io(#[from] io::Error),
}

impl RuleBreach {
    pub(crate) fn unmet(expected: impl fmt::Display, seen: impl fmt::Display) -> Self {
        Self::Unmet {
            expected: expected.to_string(),
            seen: seen.to_string(),
        }
    }

    /// Adds what was done before.
    pub(crate) fn after(self, done: impl fmt::Display) -> Self {
        match self {
            Self::Unmet { expected, seen } => Self::unmet(expected, format!("{seen}, {done}")),
            other => other,
        }
    }
}

/// What the check of a rule returns.
pub type Verdict = Result<(), RuleBreach>;

/// Something `expected`, which holds unless something else was `seen`.
pub(crate) fn hold(is_so: bool, expected: impl fmt::Display, seen: impl fmt::Display) -> Verdict {
    if is_so {
        Ok(())
    } else {
        Err(RuleBreach::unmet(expected, seen))
    }
}

/// What was read must be what was written.
pub(crate) fn same(got: &[u8], sent: &[u8]) -> Verdict {
    hold(got == sent, "the bytes that were written", "others arrived")
}

/// A call that must transfer exactly `want` bytes.
pub(crate) fn count(what: impl fmt::Display, got: io::Result<usize>, want: usize) -> Verdict {
    match got {
        Ok(got) if got == want => Ok(()),
        got => Err(RuleBreach::unmet(
            format_args!("{what} to return Ok({want})"),
            format_args!("it returned {got:?}"),
        )),
    }
}

/// A call that must fail with `want`.
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

/// A call that must succeed.
pub(crate) fn succeeds<T>(what: impl fmt::Display, got: io::Result<T>) -> Result<T, RuleBreach> {
    got.map_err(|error| {
        RuleBreach::unmet(
            format_args!("{what} to succeed"),
            format_args!("it failed: {error:?}"),
        )
    })
}
