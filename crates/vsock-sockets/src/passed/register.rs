// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register of passed descriptors. It limits their number, and lets the two sides of each one,
//! the device's stream and the pump, tell each other what a socket pair cannot convey: that the
//! connection was aborted, or that the descriptor failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::journal::Journal;

/// The state of the device's stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    /// The device has the stream.
    Open,
    /// The stream was closed. The bytes that it sent must still be delivered.
    Closed,
    /// The stream was aborted. Undelivered bytes are discarded.
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// The running pumps, each with the state of its stream.
    pumps: BTreeMap<u64, Held>,
}

impl State {
    /// Returns whether a pump is still running after its stream has gone.
    fn is_owing(&self) -> bool {
        self.pumps.values().any(|held| *held != Held::Open)
    }
}

/// The register of a backend.
#[derive(Debug, Default)]
pub(super) struct Register {
    state: Mutex<State>,
    ended: Condvar,
    /// The log of the backend and its pumps, within one limit for all of them.
    journal: Journal,
}

/// The entry of a passed descriptor, which both sides share.
#[derive(Debug)]
struct Entry {
    register: Arc<Register>,
    number: u64,
    /// Set if the descriptor has failed, so that its end must not look like an orderly one.
    broken: OnceLock<()>,
}

/// The device's side of an entry.
#[derive(Debug)]
pub(super) struct StreamEntry(Arc<Entry>);

/// The pump's side of an entry. Dropping it frees the place in the register.
#[derive(Debug)]
pub(super) struct PumpEntry(Arc<Entry>);

impl Register {
    /// Adds an entry for another descriptor, unless there are already `most`.
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

    pub(super) const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Waits for up to `most` for the pumps whose streams have gone, so that they can deliver the
    /// last bytes.
    pub(super) fn wait_for_the_last(&self, most: Duration) {
        let waited = self
            .ended
            .wait_timeout_while(self.state(), most, |state| state.is_owing());
        drop(waited);
    }

    /// Returns whether a pump is still running after its stream has gone.
    #[cfg(test)]
    pub(super) fn is_owing(&self) -> bool {
        self.state().is_owing()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The map is consistent even after a panic: each change is a single operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn held(&self) -> Option<Held> {
        self.register.state().pumps.get(&self.number).copied()
    }
}

impl StreamEntry {
    /// Notes that the stream is about to be dropped because the connection was aborted.
    pub(super) fn abort(&self) {
        self.end(Held::Aborted);
    }

    /// Returns whether the descriptor has failed. Call this after reading the end.
    pub(super) fn is_broken(&self) -> bool {
        self.0.broken.get().is_some()
    }

    fn end(&self, as_what: Held) {
        match self.0.register.state().pumps.get_mut(&self.0.number) {
            // The first call counts: the drop after an abort must not make it a close.
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
    /// Notes that the descriptor has failed. Call this before ending the device's socket.
    pub(super) fn fail(&self) {
        // It may already be set.
        let _again = self.0.broken.set(());
    }

    /// Returns the register, for the case that the entry is lost.
    pub(super) fn register(&self) -> Arc<Register> {
        Arc::clone(&self.0.register)
    }

    pub(super) fn journal(&self) -> &Journal {
        self.0.register.journal()
    }

    /// Returns whether the connection was aborted. This is set before the device's socket is
    /// closed.
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
    fn a_place_is_freed_by_the_end_of_its_pump_not_of_its_stream() {
        let register = Arc::new(Register::default());
        let (stream, pump) = register.enter(1).unwrap();
        assert!(register.enter(1).is_none());
        drop(stream);
        assert!(register.enter(1).is_none());
        drop(pump);
        register.enter(1).unwrap();
    }

    #[test]
    fn only_an_abort_counts_as_an_abort() {
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
