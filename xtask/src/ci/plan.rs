// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decides which steps run side by side.
//!
//! A step declares the load that it puts on the machine and the steps that must end before it
//! starts. Steps whose tests have deadlines mostly wait, so two of them run at the same time. What
//! they wait for is built next to them, at a lower priority. A step for which no other waits gets
//! what the others leave: also during a build, because sometimes all of cargo's jobs wait for the
//! linker or for one crate.

/// The load that a step puts on the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Load {
    /// Almost none: the step can run alongside any others.
    Light,
    /// Every core, to build what timed steps run.
    Build,
    /// Every core, but no step waits for this one.
    Spare,
    /// The step's tests have deadlines, so they need a processor in time.
    Timed,
}

impl Load {
    /// Returns the maximum number of steps with this load that run at the same time.
    fn slots(self) -> usize {
        match self {
            Self::Light => usize::MAX,
            Self::Build | Self::Spare => 1,
            Self::Timed => 2,
        }
    }

    /// Returns how much a step gives way to others: an argument of `nice`.
    pub(super) fn niceness(self) -> u8 {
        match self {
            Self::Light | Self::Timed => 0,
            Self::Build => 10,
            Self::Spare => 19,
        }
    }
}

/// The properties of a step that the plan needs.
pub(super) trait Step {
    /// Returns the step's load.
    fn load(&self) -> Load;
    /// Returns the names of the steps that must end before this one starts, whether they pass or
    /// fail.
    fn after(&self) -> &[&str];
    /// Returns the step's name.
    fn name(&self) -> &str;
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waits,
    Runs,
    Ended,
}

/// The steps and the state of each.
#[derive(Debug)]
pub(super) struct Plan<'a, S> {
    steps: &'a [S],
    states: Vec<State>,
}

impl<'a, S: Step> Plan<'a, S> {
    pub(super) fn new(steps: &'a [S]) -> Self {
        Self {
            steps,
            states: vec![State::Waits; steps.len()],
        }
    }

    /// Marks the next step that can run now as running, and returns its index.
    pub(super) fn start(&mut self) -> Option<usize> {
        let next = (0..self.steps.len())
            .filter(|&step| self.states[step] == State::Waits && self.is_ready(step))
            // Timed steps come first: they end the longest chains of steps.
            .min_by_key(|&step| self.steps[step].load() != Load::Timed)?;
        self.states[next] = State::Runs;
        Some(next)
    }

    /// Records that a step has ended.
    pub(super) fn end(&mut self, step: usize) {
        self.states[step] = State::Ended;
    }

    fn is_ready(&self, step: usize) -> bool {
        let step = &self.steps[step];
        let ended = |name: &&str| {
            let find = self.steps.iter().position(|other| other.name() == *name);
            find.is_none_or(|other| self.states[other] == State::Ended)
        };
        let fits = self.running(step.load()) < step.load().slots();
        fits && step.after().iter().all(ended)
    }

    fn running(&self, kind: Load) -> usize {
        let steps = self.steps.iter().zip(&self.states);
        steps
            .filter(|(step, state)| **state == State::Runs && step.load() == kind)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example(&'static str, Load, &'static [&'static str]);

    impl Step for Example {
        fn load(&self) -> Load {
            self.1
        }

        fn after(&self) -> &[&str] {
            self.2
        }

        fn name(&self) -> &str {
            self.0
        }
    }

    /// The names of all steps that can start now.
    fn started(plan: &mut Plan<'_, Example>) -> Vec<&'static str> {
        let steps = plan.steps;
        std::iter::from_fn(|| plan.start())
            .map(|step| steps[step].0)
            .collect()
    }

    #[test]
    fn a_step_starts_when_all_steps_it_follows_have_ended() {
        let steps = [
            Example("a", Load::Light, &[]),
            Example("b", Load::Light, &[]),
            Example("c", Load::Light, &["a", "b"]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a", "b"]);
        plan.end(0);
        assert_eq!(started(&mut plan), [""; 0]);
        plan.end(1);
        assert_eq!(started(&mut plan), ["c"]);
    }

    #[test]
    fn one_build_and_one_step_in_its_gaps_run_next_to_two_timed_steps() {
        let steps = [
            Example("spare", Load::Spare, &[]),
            Example("later", Load::Spare, &[]),
            Example("build", Load::Build, &[]),
            Example("next", Load::Build, &[]),
            Example("x", Load::Timed, &[]),
            Example("y", Load::Timed, &[]),
            Example("z", Load::Timed, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["x", "y", "spare", "build"]);
        plan.end(5);
        assert_eq!(started(&mut plan), ["z"]);
        plan.end(0);
        assert_eq!(started(&mut plan), ["later"]);
        plan.end(2);
        assert_eq!(started(&mut plan), ["next"]);
    }

    #[test]
    fn a_spare_step_gives_way_to_all_others() {
        let loads = [Load::Light, Load::Build, Load::Timed];
        assert!(
            loads
                .iter()
                .all(|load| load.niceness() < Load::Spare.niceness())
        );
    }

    #[test]
    fn a_light_step_starts_next_to_any_others() {
        let steps = [
            Example("a", Load::Build, &[]),
            Example("b", Load::Timed, &[]),
            Example("c", Load::Light, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["b", "a", "c"]);
    }

    #[test]
    fn a_step_that_is_not_in_the_table_delays_no_other() {
        let steps = [Example("a", Load::Light, &["setup"])];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a"]);
    }
}
