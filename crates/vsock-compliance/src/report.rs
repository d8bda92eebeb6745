// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::error::Error;
use std::fmt;

use crate::breach::{RuleBreach, Verdict};
use crate::rule::Rule;
use crate::source::ConnectionEnd;

/// A rule from which a transport deviates on purpose, and the reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exception {
    /// The name of the rule.
    pub name: &'static str,
    /// Why the transport deviates.
    pub reason: &'static str,
}

/// A rule that a transport breaks, or an exception that is wrong.
#[derive(Debug)]
pub struct RuleFailure {
    name: &'static str,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Broken {
        rule: Rule,
        /// The end from which the rule was checked; `None` for rules about backends.
        end: Option<ConnectionEnd>,
        breach: RuleBreach,
    },
    HoldsAfterAll {
        reason: &'static str,
    },
    UnknownException,
}

impl RuleFailure {
    /// Returns the name of the rule or of the exception.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how the rule was broken, or `None` if its exception is wrong.
    #[must_use]
    pub const fn breach(&self) -> Option<&RuleBreach> {
        match &self.cause {
            Cause::Broken { breach, .. } => Some(breach),
            Cause::HoldsAfterAll { .. } | Cause::UnknownException => None,
        }
    }
}

impl fmt::Display for RuleFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        let (rule, end, breach) = match &self.cause {
            Cause::HoldsAfterAll { reason } => {
                return write!(f, "`{name}` is an exception, but the rule holds: {reason}");
            }
            Cause::UnknownException => {
                return write!(f, "`{name}` is an exception, but not a rule");
            }
            Cause::Broken { rule, end, breach } => (rule, end, breach),
        };
        write!(f, "`{name}`")?;
        if let Some(end) = end {
            write!(f, ", at the {end} end")?;
        }
        write!(f, "\n    {:<8}  {}", rule.section, rule.sentence)?;
        match breach {
            RuleBreach::Unmet { expected, seen } => {
                write!(f, "\n    expected  {expected}\n    seen      {seen}")
            }
            RuleBreach::Io(error) => write!(f, "\n    seen      {breach}: {error:?}"),
            RuleBreach::Inapplicable(_) => write!(f, "\n    seen      {breach}"),
        }
    }
}

impl Error for RuleFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.breach().map(|breach| breach as _)
    }
}

/// The result of checking a transport. Its `Display` output lists every rule and its result.
#[derive(Debug, Default)]
pub struct ComplianceReport {
    held: Vec<(&'static str, &'static str)>,
    inapplicable: Vec<(&'static str, &'static str)>,
    excepted: Vec<Exception>,
    failures: Vec<RuleFailure>,
}

impl ComplianceReport {
    /// Checks every rule and sorts the results. `check` receives the rule's exception, if any.
    pub(crate) fn of<R: AsRef<Rule>>(
        rules: &[R],
        exceptions: &[Exception],
        check: impl Fn(&R, Option<&Exception>) -> Vec<(Option<ConnectionEnd>, Verdict)>,
    ) -> Self {
        let mut report = Self::default();
        for checked in rules {
            let rule = checked.as_ref();
            let mut exceptions = exceptions.iter();
            let exception = exceptions.find(|exception| exception.name == rule.name);
            let breaches = check(checked, exception)
                .into_iter()
                .filter_map(|(end, verdict)| verdict.err().map(|breach| (end, breach)));
            report.add(rule, exception, breaches.collect());
        }
        for Exception { name, .. } in exceptions {
            if !rules.iter().any(|rule| rule.as_ref().name == *name) {
                report.fail(name, Cause::UnknownException);
            }
        }
        report
    }

    fn add(
        &mut self,
        rule: &Rule,
        exception: Option<&Exception>,
        breaches: Vec<(Option<ConnectionEnd>, RuleBreach)>,
    ) {
        let name = rule.name;
        match exception {
            Some(Exception { reason, .. }) if breaches.is_empty() => {
                self.fail(name, Cause::HoldsAfterAll { reason });
            }
            Some(exception) => self.excepted.push(*exception),
            None if breaches.is_empty() => self.held.push((name, rule.sentence)),
            None => breaches.into_iter().for_each(|breach| match breach {
                (_, RuleBreach::Inapplicable(why)) => self.inapplicable.push((name, why)),
                (end, breach) => self.fail(
                    name,
                    Cause::Broken {
                        rule: *rule,
                        end,
                        breach,
                    },
                ),
            }),
        }
    }

    fn fail(&mut self, name: &'static str, cause: Cause) {
        self.failures.push(RuleFailure { name, cause });
    }

    /// Returns whether the transport passed: only the rules with exceptions failed, and all of
    /// those did.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns the names of the rules that hold.
    #[must_use]
    pub fn held(&self) -> Vec<&'static str> {
        self.held.iter().map(|(name, _)| *name).collect()
    }

    /// Returns the names of the rules that are about something that the transport does not have,
    /// and what that is. A rule that applies in neither direction is listed twice.
    #[must_use]
    pub fn inapplicable(&self) -> &[(&'static str, &'static str)] {
        &self.inapplicable
    }

    /// Returns the rules that failed and the exceptions that are wrong.
    #[must_use]
    pub fn failures(&self) -> &[RuleFailure] {
        &self.failures
    }
}

impl fmt::Display for ComplianceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, sentence) in &self.held {
            writeln!(f, "holds         {name}: {sentence}")?;
        }
        for (name, why) in &self.inapplicable {
            writeln!(f, "inapplicable  {name}: {why}")?;
        }
        for Exception { name, reason } in &self.excepted {
            writeln!(f, "excepted      {name}: {reason}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILS         {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Checked(Rule);

    impl AsRef<Rule> for Checked {
        fn as_ref(&self) -> &Rule {
            &self.0
        }
    }

    fn report(exceptions: &[Exception], breach: Option<fn() -> RuleBreach>) -> ComplianceReport {
        let rule = Rule {
            name: "a_drop_is_a_close",
            section: "4",
            sentence: "After a drop the peer's read is `Ok(0)`.",
        };
        ComplianceReport::of(&[Checked(rule)], exceptions, |_, _| {
            let verdict = breach.map_or(Ok(()), |breach| Err(breach()));
            vec![(Some(ConnectionEnd::Device), verdict)]
        })
    }

    const EXCEPTION: Exception = Exception {
        name: "a_drop_is_a_close",
        reason: "it is not",
    };

    #[test]
    fn a_failure_names_the_rule_the_end_the_sentence_and_both_outcomes() {
        let report = report(
            &[],
            Some(|| RuleBreach::unmet("a read to return Ok(0)", "it returned Ok(1)")),
        );
        assert!(!report.is_good());
        assert_eq!(
            report.failures()[0].to_string(),
            "`a_drop_is_a_close`, at the device end\n    \
             4         After a drop the peer's read is `Ok(0)`.\n    \
             expected  a read to return Ok(0)\n    \
             seen      it returned Ok(1)"
        );
    }

    #[test]
    fn a_rule_that_holds_is_listed_with_its_sentence_and_must_have_no_exception() {
        let good = report(&[], None);
        assert!(good.is_good() && good.held() == ["a_drop_is_a_close"]);
        assert!(good.to_string().contains("After a drop"), "{good}");
        let stale = report(&[EXCEPTION], None);
        assert!(!stale.is_good());
        assert!(
            stale
                .to_string()
                .contains("is an exception, but the rule holds: it is not")
        );
    }

    #[test]
    fn an_exception_covers_its_rule_and_must_name_an_existing_one() {
        let excepted = report(&[EXCEPTION], Some(|| RuleBreach::Inapplicable("none")));
        assert!(excepted.is_good(), "{excepted}");
        let name = "a_drop_is_no_rule";
        let misspelt = report(&[Exception { name, ..EXCEPTION }], None);
        assert_eq!(misspelt.failures()[0].name(), name);
        assert!(misspelt.failures()[0].breach().is_none());
    }

    #[test]
    fn an_inapplicable_rule_is_not_a_failure() {
        let report = report(&[], Some(|| RuleBreach::Inapplicable("no peek")));
        assert!(report.is_good());
        assert_eq!(report.inapplicable(), [("a_drop_is_a_close", "no peek")]);
    }
}
