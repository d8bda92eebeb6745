// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use crate::breach::Verdict;
use crate::play::play;
use crate::scene::Scene;
use crate::source::BackendSource;
use crate::step::Step;

/// A sentence of the contract, under the name of one check of it. Several rules may share a
/// sentence.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Rule {
    /// What the rule is called, which is unique.
    pub name: &'static str,
    /// The section of the contract.
    pub section: &'static str,
    /// What the contract says.
    pub sentence: &'static str,
}

/// A rule about a connected pair, seen from one of its ends.
#[derive(Clone, Copy, Debug)]
pub struct StreamRule {
    rule: Rule,
    check: StreamCheck,
}

impl StreamRule {
    /// Checks the rule on new pairs of the scene.
    ///
    /// Every check begins with non-blocking calls on a thread of their own: a transport on which
    /// those wait breaks the rule, and does not hold the check up.
    ///
    /// # Errors
    ///
    /// [`RuleBreach`](crate::RuleBreach): why it does not hold.
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
    /// [`RuleBreach`](crate::RuleBreach): why it does not hold.
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
    /// By steps: each list of them on a new pair whose ends are both non-blocking.
    Steps(&'static [&'static [Step]]),
    /// By a function, where steps cannot say it.
    Custom(fn(&Scene<'_>) -> Verdict),
}

/// How a rule about a backend is checked.
pub(crate) type BackendCheck = fn(&dyn BackendSource) -> Verdict;

/// A sentence of the contract with its checks, by name: a row of the tables in `rules`.
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
