// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::fmt;
use std::io;

/// Why a sentence does not hold for a transport.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The transport did something else than the sentence says.
    Violated(String),
    /// The sentence speaks of something that the transport does not have.
    Inapplicable(&'static str),
    /// A call that the rule needs failed on the way.
    Io(io::Error),
}

impl Failure {
    /// Adds whose end saw it.
    pub(super) fn seen_by(self, end: &str) -> Self {
        match self {
            Self::Violated(what) => Self::Violated(format!("{what} (at the {end}'s end)")),
            Self::Io(error) => Self::Violated(format!(
                "a call failed that the rule needs: {error:?} (at the {end}'s end)"
            )),
            Self::Inapplicable(why) => Self::Inapplicable(why),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violated(what) => write!(f, "violated: {what}"),
            Self::Inapplicable(why) => write!(f, "inapplicable: {why}"),
            Self::Io(_) => f.write_str("a call failed that the rule needs"),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Violated(_) | Self::Inapplicable(_) => None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a rule returns.
pub type Verdict = Result<(), Failure>;

/// Fails with `what` where `held` is false.
pub(super) fn hold(held: bool, what: impl fmt::Display) -> Verdict {
    if held {
        Ok(())
    } else {
        Err(Failure::Violated(what.to_string()))
    }
}

/// A call that must transfer exactly `want` bytes.
pub(super) fn count(what: impl fmt::Display, got: io::Result<usize>, want: usize) -> Verdict {
    match got {
        Ok(got) if got == want => Ok(()),
        got => Err(Failure::Violated(format!(
            "{what} returned {got:?} instead of Ok({want})"
        ))),
    }
}

/// A call that must fail with `want`.
pub(super) fn fails<T: fmt::Debug>(
    what: impl fmt::Display,
    got: io::Result<T>,
    want: io::ErrorKind,
) -> Verdict {
    match got {
        Err(error) if error.kind() == want => Ok(()),
        got => Err(Failure::Violated(format!(
            "{what} returned {got:?} instead of {want:?}"
        ))),
    }
}

/// A call that must succeed.
pub(super) fn succeeds<T>(what: impl fmt::Display, got: io::Result<T>) -> Result<T, Failure> {
    got.map_err(|error| Failure::Violated(format!("{what} failed: {error:?}")))
}
