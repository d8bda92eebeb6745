// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What every stream and every backend must do, sentence by sentence.
//!
//! A [`Rule`] is one sentence of the contract and a function that checks it. [`streams`] lists those
//! about connected pairs, [`backends`] those about what makes them. A transport that does not share
//! a sentence lists it by name, with the reason; [`judge_streams`] also fails when a listed sentence
//! holds after all, so the list cannot go stale.
//!
//! The rules install a handler for `SIGRTMIN`, which does nothing, to interrupt calls.

mod backend;
mod blocking;
mod bytes;
mod capacity;
mod descriptors;
mod edges;
mod empty;
mod ends;
mod messages;
mod modes;
mod partial;
mod readable;
mod report;
mod scene;
mod timeouts;
mod verdict;
mod writable;

use std::fmt;
use std::time::Duration;

pub use self::report::Report;
pub use self::scene::{Pair, Scene};
pub use self::verdict::{Failure, Verdict};
use crate::source::{BackendSource, PairSource};

/// How long a rule waits for what must happen: plenty for a machine under load.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a rule waits that is expected not to hold.
const IMPATIENCE: Duration = Duration::from_millis(300);

/// A sentence, and the function `C` that checks it.
#[derive(Clone, Copy)]
pub struct Rule<C> {
    /// The section of the contract.
    pub section: &'static str,
    /// What the contract says.
    pub sentence: &'static str,
    /// What the rule is called.
    pub name: &'static str,
    /// Checks it.
    pub check: C,
}

impl<C> Rule<C> {
    const fn new(
        section: &'static str,
        sentence: &'static str,
        name: &'static str,
        check: C,
    ) -> Self {
        Self {
            section,
            sentence,
            name,
            check,
        }
    }
}

impl<C> fmt::Debug for Rule<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.section, self.name, self.sentence)
    }
}

/// A rule about a connected pair, seen from its near end.
pub type StreamRule = Rule<fn(&Scene<'_>) -> Verdict>;

/// A rule about a backend.
pub type BackendRule = Rule<fn(&dyn BackendSource) -> Verdict>;

/// A sentence that a transport does not share, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exception {
    /// The name of the rule.
    pub name: &'static str,
    /// Why the transport does otherwise.
    pub reason: &'static str,
}

/// Every rule about connected pairs, in the order of the contract.
#[must_use]
pub fn streams() -> Vec<StreamRule> {
    [
        bytes::rules(),
        modes::rules(),
        empty::rules(),
        blocking::rules(),
        partial::rules(),
        timeouts::rules(),
        capacity::rules(),
        readable::rules(),
        edges::rules(),
        writable::rules(),
        descriptors::rules(),
        ends::rules(),
    ]
    .concat()
}

/// Every rule about connected pairs that keep messages apart.
#[must_use]
pub fn messages() -> Vec<StreamRule> {
    messages::rules()
}

/// Every rule about backends.
#[must_use]
pub fn backends() -> Vec<BackendRule> {
    backend::rules()
}

/// Checks every rule of [`streams`] from both ends.
///
/// The [`Report`] is good if every rule holds or is inapplicable, but for those in `exceptions`,
/// none of which may hold from both ends.
#[must_use]
pub fn judge_streams(source: &dyn PairSource, exceptions: &[Exception]) -> Report {
    judge_pairs(&streams(), source, exceptions)
}

/// Checks every rule of [`messages`] from both ends, as [`judge_streams`] does those of streams.
#[must_use]
pub fn judge_messages(source: &dyn PairSource, exceptions: &[Exception]) -> Report {
    judge_pairs(&messages(), source, exceptions)
}

fn judge_pairs(rules: &[StreamRule], source: &dyn PairSource, exceptions: &[Exception]) -> Report {
    Report::of(rules, exceptions, |rule, excepted| {
        let patience = if excepted { IMPATIENCE } else { PATIENCE };
        let scene = Scene::new(source, patience);
        [scene, scene.turned()]
            .map(|scene| (rule.check)(&scene).map_err(|failure| failure.seen_by(scene.near_name())))
    })
}

/// Checks every rule of [`backends`].
#[must_use]
pub fn judge_backends(source: &dyn BackendSource, exceptions: &[Exception]) -> Report {
    Report::of(&backends(), exceptions, |rule, _| [(rule.check)(source)])
}
