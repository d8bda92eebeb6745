// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults of calls on a stream.

use std::collections::VecDeque;
use std::io::ErrorKind;

/// What a call does instead of its normal work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamFault {
    /// The call transfers at most this many bytes, and at least one.
    Short(usize),
    /// The call returns `WouldBlock`, and the stream becomes ready again afterwards.
    WouldBlock,
    /// The call is interrupted by a signal.
    Interrupted,
    /// The call fails, and so does every later one.
    Error(ErrorKind),
    /// The stream has ended: this and every later read returns no bytes, and every write returns
    /// `BrokenPipe`.
    End,
}

impl StreamFault {
    /// One fault of each kind.
    pub const ALL: [Self; 7] = [
        Self::Short(1),
        Self::Short(7),
        Self::WouldBlock,
        Self::Interrupted,
        Self::Error(ErrorKind::ConnectionReset),
        Self::Error(ErrorKind::Other),
        Self::End,
    ];

    /// Returns whether all bytes still arrive in order despite the fault.
    #[must_use]
    pub const fn is_harmless(self) -> bool {
        matches!(self, Self::Short(_) | Self::WouldBlock | Self::Interrupted)
    }
}

/// The faults of certain calls, in one direction of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultScript {
    calls: usize,
    faults: VecDeque<(usize, StreamFault)>,
    /// The fault of every later call.
    stuck: Option<StreamFault>,
}

impl FaultScript {
    /// Makes the call with this index, counted from the first one, fail in this way.
    pub(crate) fn at(&mut self, index: usize, fault: StreamFault) {
        let place = self.faults.partition_point(|(at, _)| *at <= index);
        self.faults.insert(place, (index, fault));
    }

    /// Returns the fault of the next call, if any.
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

    /// Returns how many calls were made.
    #[must_use]
    pub(crate) const fn calls(&self) -> usize {
        self.calls
    }
}
