// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which steps run side by side.
//!
//! A step says what it wants of the machine and what must end before it starts. Steps whose tests
//! have deadlines mostly wait, so two of them share the machine. A step that only wants the
//! processor fills it meanwhile, at a low priority. While no test runs there are two such steps:
//! cargo starts a job for each core by itself, but at times it links, or waits for one crate.

/// What a step wants of the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wants {
    /// Next to nothing: it runs beside anything.
    Little,
    /// Cores, for as long as it takes. It gives way to a step that wants time.
    Processor,
    /// To be on time: its tests have deadlines.
    Time,
}

/// What the plan must know of a step.
pub(super) trait Step {
    /// What it wants.
    fn wants(&self) -> Wants;
    /// The names of the steps that must end before it starts, whether they pass or fail.
    fn after(&self) -> &[&str];
    /// Its own name.
    fn name(&self) -> &str;
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Waits,
    Runs,
    Ended,
}

/// How many steps of a kind run at the same time.
const SLOTS: usize = 2;

/// The steps, and how far each of them is.
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

    /// Starts a step: returns the index of the first one in the table that can run now.
    pub(super) fn start(&mut self) -> Option<usize> {
        let next = (0..self.steps.len())
            .filter(|&step| self.states[step] == State::Waits && self.is_ready(step))
            // These have the longest chain of steps before them.
            .min_by_key(|&step| self.steps[step].wants() != Wants::Time)?;
        self.states[next] = State::Runs;
        Some(next)
    }

    /// Notes that a step has ended.
    pub(super) fn end(&mut self, step: usize) {
        self.states[step] = State::Ended;
    }

    fn is_ready(&self, step: usize) -> bool {
        let step = &self.steps[step];
        let ended = |name: &&str| {
            let find = self.steps.iter().position(|other| other.name() == *name);
            find.is_none_or(|other| self.states[other] == State::Ended)
        };
        let timed = self.running(Wants::Time);
        let fits = match step.wants() {
            Wants::Little => true,
            Wants::Time => timed < SLOTS,
            Wants::Processor => self.running(Wants::Processor) < SLOTS - timed.min(1),
        };
        fits && step.after().iter().all(ended)
    }

    fn running(&self, kind: Wants) -> usize {
        let steps = self.steps.iter().zip(&self.states);
        steps
            .filter(|(step, state)| **state == State::Runs && step.wants() == kind)
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example(&'static str, Wants, &'static [&'static str]);

    impl Step for Example {
        fn wants(&self) -> Wants {
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
            Example("a", Wants::Little, &[]),
            Example("b", Wants::Little, &[]),
            Example("c", Wants::Little, &["a", "b"]),
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
        let steps = ["a", "b", "c"].map(|name| Example(name, Wants::Processor, &[]));
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a", "b"]);
        plan.end(1);
        assert_eq!(started(&mut plan), ["c"]);
    }

    #[test]
    fn one_step_fills_the_processor_next_to_two_that_need_time() {
        let steps = [
            Example("work", Wants::Processor, &[]),
            Example("more", Wants::Processor, &[]),
            Example("x", Wants::Time, &[]),
            Example("y", Wants::Time, &[]),
            Example("z", Wants::Time, &[]),
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
            Example("a", Wants::Processor, &[]),
            Example("b", Wants::Processor, &[]),
            Example("c", Wants::Little, &[]),
            Example("d", Wants::Time, &["c"]),
            Example("e", Wants::Processor, &[]),
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
            Example("a", Wants::Processor, &[]),
            Example("b", Wants::Time, &[]),
            Example("c", Wants::Little, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["b", "a", "c"]);
    }

    #[test]
    fn a_step_that_is_not_in_the_table_delays_no_other() {
        let steps = [Example("a", Wants::Little, &["setup"])];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a"]);
    }
}
