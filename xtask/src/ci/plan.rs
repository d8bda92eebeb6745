// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which steps run side by side.
//!
//! A step says what it wants of the machine and what must end before it starts. At most two steps
//! that want the processor run at the same time: cargo starts a job for each core by itself, and a
//! second step fills the cores while the first one links or waits. Steps whose tests have deadlines
//! never share the machine with each other.

/// What a step wants of the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wants {
    /// Next to nothing: it runs beside anything.
    Little,
    /// Cores, for as long as it takes. It gives way to a step that wants time.
    Processor,
    /// To be on time: its tests have deadlines, or it measures.
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

/// How many steps that want the processor or time run at the same time.
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
            // The steps that want time cannot overlap, so they decide how long all of it takes.
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
        let timed = self.running(|other| other == Wants::Time);
        let busy = self.running(|other| other != Wants::Little);
        let fits = match step.wants() {
            Wants::Little => true,
            Wants::Processor => busy < SLOTS,
            Wants::Time => busy < SLOTS && timed == 0,
        };
        fits && step.after().iter().all(ended)
    }

    fn running(&self, of: impl Fn(Wants) -> bool) -> usize {
        let steps = self.steps.iter().zip(&self.states);
        steps
            .filter(|(step, state)| **state == State::Runs && of(step.wants()))
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
    fn a_step_starts_when_all_that_it_follows_have_ended() {
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
    fn two_steps_that_want_the_processor_run_at_the_same_time() {
        let steps = ["a", "b", "c"].map(|name| Example(name, Wants::Processor, &[]));
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a", "b"]);
        plan.end(1);
        assert_eq!(started(&mut plan), ["c"]);
    }

    #[test]
    fn steps_that_want_time_run_one_after_the_other_and_first() {
        let steps = [
            Example("work", Wants::Processor, &[]),
            Example("more", Wants::Processor, &[]),
            Example("x", Wants::Time, &[]),
            Example("y", Wants::Time, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["x", "work"]);
        plan.end(0);
        assert_eq!(started(&mut plan), ["more"]);
        plan.end(2);
        assert_eq!(started(&mut plan), ["y"]);
    }

    #[test]
    fn a_step_that_wants_little_starts_beside_any_others() {
        let steps = [
            Example("a", Wants::Processor, &[]),
            Example("b", Wants::Time, &[]),
            Example("c", Wants::Little, &[]),
        ];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["b", "a", "c"]);
    }

    #[test]
    fn a_step_that_is_not_in_the_table_holds_nothing_up() {
        let steps = [Example("a", Wants::Little, &["setup"])];
        let mut plan = Plan::new(&steps);
        assert_eq!(started(&mut plan), ["a"]);
    }
}
