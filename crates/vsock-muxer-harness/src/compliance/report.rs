// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fmt;

use super::{Exception, Failure, Rule, Verdict};

/// What came of checking a transport.
#[derive(Debug, Default)]
pub struct Report {
    held: Vec<&'static str>,
    inapplicable: Vec<(&'static str, &'static str)>,
    excepted: Vec<Exception>,
    failures: Vec<String>,
}

impl Report {
    /// Checks every rule and sorts the verdicts. `check` learns whether the rule is excepted.
    pub(super) fn of<C, const N: usize>(
        rules: &[Rule<C>],
        exceptions: &[Exception],
        check: impl Fn(&Rule<C>, bool) -> [Verdict; N],
    ) -> Self {
        let mut report = Self::default();
        for rule in rules {
            let exception = exceptions
                .iter()
                .find(|exception| exception.name == rule.name);
            let failures = check(rule, exception.is_some())
                .into_iter()
                .filter_map(Result::err);
            report.add(rule, exception, &failures.collect::<Vec<_>>());
        }
        for exception in exceptions {
            if !rules.iter().any(|rule| rule.name == exception.name) {
                report
                    .failures
                    .push(format!("`{}` is excepted and no rule", exception.name));
            }
        }
        report
    }

    fn add<C>(&mut self, rule: &Rule<C>, exception: Option<&Exception>, failures: &[Failure]) {
        let name = rule.name;
        if let Some(exception) = exception {
            if failures.is_empty() {
                self.failures.push(format!(
                    "`{name}` holds, but is excepted: {}",
                    exception.reason
                ));
            } else {
                self.excepted.push(*exception);
            }
            return;
        }
        let mut held = true;
        for failure in failures {
            held = false;
            let failure = match failure {
                Failure::Inapplicable(why) => {
                    self.inapplicable.push((name, *why));
                    continue;
                }
                Failure::Violated(_) => failure.to_string(),
                Failure::Io(error) => format!("{failure}: {error:?}"),
            };
            let (section, sentence) = (rule.section, rule.sentence);
            self.failures
                .push(format!("{section} `{name}`: {failure}\n    ({sentence})"));
        }
        if held {
            self.held.push(name);
        }
    }

    /// Whether the transport shares every sentence that it does not except.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.failures.is_empty()
    }

    /// The names of the rules that hold.
    #[must_use]
    pub fn held(&self) -> &[&'static str] {
        &self.held
    }

    /// The names of the rules that speak of something that the transport does not have, and what.
    /// One that does not apply to either direction is listed twice.
    #[must_use]
    pub fn inapplicable(&self) -> &[(&'static str, &'static str)] {
        &self.inapplicable
    }

    /// What is wrong, one paragraph each.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.held {
            writeln!(f, "holds         {name}")?;
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
