// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::breach::Verdict;
use crate::play::play;
use crate::scene::Scene;
use crate::source::BackendSource;
use crate::step::Step;

/// A promise of the traits, under the name of one check of it. Several rules may share a promise.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// The name of the rule, which is unique.
    pub name: &'static str,
    /// The number of the promise's section. Related promises have the same number.
    pub section: &'static str,
    /// The text of the promise.
    pub sentence: &'static str,
}

/// A rule about a connected pair, checked from one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct StreamRule {
    rule: Rule,
    check: StreamCheck,
}

impl StreamRule {
    /// Checks the rule on new pairs of the scene.
    ///
    /// Every check begins with non-blocking calls on a separate thread, so a transport in which
    /// these calls block fails the rule but does not block the check.
    ///
    /// # Errors
    ///
    /// [`RuleBreach`](crate::RuleBreach) if the rule does not hold.
    pub fn check(&self, scene: &Scene<'_>) -> Verdict {
        scene.try_nonblocking()?;
        match self.check {
            StreamCheck::Steps(scripts) => {
                scripts.iter().try_for_each(|script| play(scene, script))
            }
            StreamCheck::Custom(check) => check(scene),
        }
    }
}

impl AsRef<Rule> for StreamRule {
    fn as_ref(&self) -> &Rule {
        &self.rule
    }
}

/// A rule about a backend.
#[derive(Clone, Copy, Debug)]
pub struct BackendRule {
    rule: Rule,
    check: BackendCheck,
}

impl BackendRule {
    /// Checks the rule on new backends of the source.
    ///
    /// # Errors
    ///
    /// [`RuleBreach`](crate::RuleBreach) if the rule does not hold.
    pub fn check(&self, source: &dyn BackendSource) -> Verdict {
        (self.check)(source)
    }
}

impl AsRef<Rule> for BackendRule {
    fn as_ref(&self) -> &Rule {
        &self.rule
    }
}

/// How a rule about a pair is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamCheck {
    /// With steps: each list of steps on a new pair with both ends non-blocking.
    Steps(&'static [&'static [Step]]),
    /// With a function, if steps cannot express the check.
    Custom(fn(&Scene<'_>) -> Verdict),
}

/// How a rule about a backend is checked.
pub(crate) type BackendCheck = fn(&dyn BackendSource) -> Verdict;

/// A promise with its checks, by name: a row of the tables in `rules`.
pub(crate) struct Sentence<C: 'static> {
    pub(crate) section: &'static str,
    pub(crate) text: &'static str,
    pub(crate) checks: &'static [(&'static str, C)],
}

impl<C: Copy> Sentence<C> {
    fn rules<R>(&self, make: fn(Rule, C) -> R) -> impl Iterator<Item = R> {
        self.checks.iter().map(move |(name, check)| {
            let (section, sentence) = (self.section, self.text);
            let rule = Rule {
                name,
                section,
                sentence,
            };
            make(rule, *check)
        })
    }
}

pub(crate) fn of_streams(tables: &[&[Sentence<StreamCheck>]]) -> Vec<StreamRule> {
    let sentences = tables.iter().copied().flatten();
    sentences
        .flat_map(|sentence| sentence.rules(|rule, check| StreamRule { rule, check }))
        .collect()
}

pub(crate) fn of_backends(table: &[Sentence<BackendCheck>]) -> Vec<BackendRule> {
    table
        .iter()
        .flat_map(|sentence| sentence.rules(|rule, check| BackendRule { rule, check }))
        .collect()
}
