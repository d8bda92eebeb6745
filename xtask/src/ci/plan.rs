// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Decides which steps run side by side.
//!
//! A step declares the load that it puts on the machine and the steps that must end before it
//! starts. Steps whose tests have deadlines mostly wait, so two of them run at the same time. A
//! step that only computes uses the rest of the processor, at a low priority. While no timed step
//! runs, two computing steps do: cargo starts a job for each core, but sometimes all jobs wait for
//! the linker or for one crate.

/// The load that a step puts on the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Load {
    /// Almost none: the step can run alongside any others.
    Light,
    /// Every core, for as long as the step runs. It gives way to a timed step.
    Processor,
    /// The step's tests have deadlines, so they need a processor in time.
    Timed,
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

/// The maximum number of steps of one load that run at the same time.
const SLOTS: usize = 2;

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
        let timed = self.running(Load::Timed);
        let fits = match step.load() {
            Load::Light => true,
            Load::Timed => timed < SLOTS,
            Load::Processor => self.running(Load::Processor) < SLOTS - timed.min(1),
        };
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
    fn two_steps_that_share_the_processor_run_at_the_same_time() {
        let steps = ["a", "b", "c"].map(|name| Example(name, Load::Processor, &[]));
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a", "b"]);
        plan.end(1);
        assert_eq!(started(&mut plan), ["c"]);
    }

    #[test]
    fn one_step_fills_the_processor_next_to_two_that_need_time() {
        let steps = [
            Example("work", Load::Processor, &[]),
            Example("more", Load::Processor, &[]),
            Example("x", Load::Timed, &[]),
            Example("y", Load::Timed, &[]),
            Example("z", Load::Timed, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["x", "y", "work"]);
        plan.end(0);
        assert_eq!(started(&mut plan), ["more"]);
        plan.end(2);
        assert_eq!(started(&mut plan), ["z"]);
    }

    #[test]
    fn a_step_that_needs_time_does_not_wait_for_the_processor() {
        let steps = [
            Example("a", Load::Processor, &[]),
            Example("b", Load::Processor, &[]),
            Example("c", Load::Light, &[]),
            Example("d", Load::Timed, &["c"]),
            Example("e", Load::Processor, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a", "b", "c"]);
        plan.end(2);
        assert_eq!(started(&mut plan), ["d"]);
        plan.end(0);
        assert_eq!(started(&mut plan), [""; 0]);
        plan.end(1);
        assert_eq!(started(&mut plan), ["e"]);
    }

    #[test]
    fn a_light_step_starts_next_to_any_others() {
        let steps = [
            Example("a", Load::Processor, &[]),
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
