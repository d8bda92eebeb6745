// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong with a call on a stream, and at which call.

use std::collections::VecDeque;
use std::io::ErrorKind;

/// What a call does instead of what it would.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamFault {
    /// It carries at most this many bytes (at least one).
    Short(usize),
    /// It returns `WouldBlock`, and the stream becomes ready again afterwards.
    WouldBlock,
    /// It is interrupted by a signal.
    Interrupted,
    /// It fails, and so does every later one.
    Error(ErrorKind),
    /// The stream has ended: a read returns nothing, a write `BrokenPipe`, and so does every later
    /// one.
    End,
}

impl StreamFault {
    /// One of each kind.
    pub const ALL: [Self; 7] = [
        Self::Short(1),
        Self::Short(7),
        Self::WouldBlock,
        Self::Interrupted,
        Self::Error(ErrorKind::ConnectionReset),
        Self::Error(ErrorKind::Other),
        Self::End,
    ];

    /// Whether bytes still arrive, all of them and in order, when this has happened.
    #[must_use]
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Short(_) | Self::WouldBlock | Self::Interrupted)
    }
}

/// A fault for each of some calls, in one direction of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultScript {
    calls: usize,
    faults: VecDeque<(usize, StreamFault)>,
    /// The fault that every later call has.
    stuck: Option<StreamFault>,
}

impl FaultScript {
    /// Lets the call with this index, counted from the first one, have a fault.
    pub(crate) fn at(&mut self, index: usize, fault: StreamFault) {
        let place = self.faults.partition_point(|(at, _)| *at <= index);
        self.faults.insert(place, (index, fault));
    }

    /// What the next call does, if not what it would.
    pub(crate) fn next(&mut self) -> Option<StreamFault> {
        let call = self.calls;
        self.calls += 1;
        if self.stuck.is_some() {
            return self.stuck;
        }
        while let Some((at, fault)) = self.faults.front().copied() {
            if at > call {
                break;
            }
            self.faults.pop_front();
            if at == call {
                if matches!(fault, StreamFault::Error(_) | StreamFault::End) {
                    self.stuck = Some(fault);
                }
                return Some(fault);
            }
        }
        None
    }

    /// How many calls there were.
    #[must_use]
    pub(crate) const fn calls(&self) -> usize {
        self.calls
    }
}
