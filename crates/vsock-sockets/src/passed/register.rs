// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which passed descriptors there are, and what each side of one has to tell the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What has become of the device's stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    /// The device has it.
    Open,
    /// It was closed: what it has sent is still to be delivered.
    Closed,
    /// It was broken off: what was not delivered is lost.
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Those whose pump runs.
    pumps: BTreeMap<u64, Held>,
}

impl State {
    /// Whether a pump has no stream any more.
    fn is_owing(&self) -> bool {
        self.pumps.values().any(|held| *held != Held::Open)
    }
}

/// The pumps of a backend.
#[derive(Debug, Default)]
pub(super) struct Register {
    state: Mutex<State>,
    ended: Condvar,
}

/// One passed descriptor, as both sides know it.
#[derive(Debug)]
struct Entry {
    register: Arc<Register>,
    number: u64,
    /// The descriptor has failed: its end must not look like an orderly one.
    broken: OnceLock<()>,
}

/// The device's side of an entry.
#[derive(Debug)]
pub(super) struct StreamEntry(Arc<Entry>);

/// The pump's side of an entry, whose place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct PumpEntry(Arc<Entry>);

impl Register {
    /// A place for another descriptor, of which there are at most `most`.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<(StreamEntry, PumpEntry)> {
        let mut state = self.state();
        if state.pumps.len() >= most {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.pumps.insert(number, Held::Open);
        drop(state);
        let entry = Arc::new(Entry {
            register: Arc::clone(self),
            number,
            broken: OnceLock::new(),
        });
        Some((StreamEntry(Arc::clone(&entry)), PumpEntry(entry)))
    }

    /// Waits, for this long at most, for the pumps that have no stream any more: they deliver what
    /// it has left.
    pub(super) fn wait_for_the_last(&self, most: Duration) {
        let waited = self
            .ended
            .wait_timeout_while(self.state(), most, |state| state.is_owing());
        drop(waited);
    }

    /// Whether a pump has no stream any more.
    #[cfg(test)]
    pub(super) fn is_owing(&self) -> bool {
        self.state().is_owing()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Entries are added, changed and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn held(&self) -> Option<Held> {
        self.register.state().pumps.get(&self.number).copied()
    }
}

impl StreamEntry {
    /// The stream is about to be dropped because the connection was broken off.
    pub(super) fn abort(&self) {
        self.end(Held::Aborted);
    }

    /// Whether the descriptor has failed. To be asked after an end was read.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.get().is_some()
    }

    fn end(&self, as_what: Held) {
        match self.0.register.state().pumps.get_mut(&self.0.number) {
            Some(held) if *held == Held::Open => *held = as_what,
            _ => {}
        }
    }
}

impl Drop for StreamEntry {
    fn drop(&mut self) {
        self.end(Held::Closed);
    }
}

impl PumpEntry {
    /// The descriptor has failed. To be said before the end is shown.
    pub(super) fn fail(&self) {
        // Once is enough.
        let _again = self.0.broken.set(());
    }

    /// Whether the connection was broken off. It is known before the device's socket is closed.
    pub(super) fn is_aborted(&self) -> bool {
        self.0.held() == Some(Held::Aborted)
    }
}

impl Drop for PumpEntry {
    fn drop(&mut self) {
        let register = &self.0.register;
        register.state().pumps.remove(&self.0.number);
        register.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use vsock_compliance::poll::Stopwatch;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_place_is_free_when_its_pump_has_ended_and_not_when_its_stream_has() {
        let register = Arc::new(Register::default());
        let (stream, pump) = register.enter(1).unwrap();
        assert!(register.enter(1).is_none());
        drop(stream);
        assert!(register.enter(1).is_none());
        drop(pump);
        register.enter(1).unwrap();
    }

    #[test]
    fn a_stream_that_was_aborted_stays_so_and_a_closed_one_was_not() {
        let register = Arc::new(Register::default());
        let (stream, pump) = register.enter(1).unwrap();
        assert!(!pump.is_aborted());
        stream.abort();
        drop(stream);
        assert!(pump.is_aborted());
        drop(pump);
        let (stream, pump) = register.enter(1).unwrap();
        drop(stream);
        assert!(!pump.is_aborted());
    }

    #[test]
    fn only_pumps_without_a_stream_are_waited_for() {
        let register = Arc::new(Register::default());
        let (_stream, _pump) = register.enter(2).unwrap();
        let watch = Stopwatch::start();
        register.wait_for_the_last(LONG);
        let (stream, pump) = register.enter(2).unwrap();
        drop(stream);
        let ends = thread::spawn(move || drop(pump));
        register.wait_for_the_last(LONG);
        ends.join().unwrap();
        assert!(watch.elapsed() < LONG);
        let (stream, _pump) = register.enter(2).unwrap();
        drop(stream);
        register.wait_for_the_last(Duration::from_millis(1));
    }
}
