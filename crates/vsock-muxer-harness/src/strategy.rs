// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Operations on a connected pair, and `proptest` strategies for them.

use std::net::Shutdown;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::sample::select;
use vsock_compliance::poll::PollInterest;
use vsock_compliance::{ConnectionEnd, Mode, refusal_threshold};

/// An operation at one end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EndAction {
    /// Reads into a buffer of this length.
    Read(usize),
    /// Reads into buffers of these lengths.
    ReadVectored(Vec<usize>),
    /// Reads without removing the bytes.
    Peek(usize),
    /// Writes this many bytes.
    Write(usize),
    /// Writes buffers of these lengths.
    WriteVectored(Vec<usize>),
    /// Changes the mode.
    SetMode(Mode),
    /// Changes the read timeout.
    SetReadTimeout(Option<Duration>),
    /// Changes the write timeout.
    SetWriteTimeout(Option<Duration>),
    /// Shuts down.
    Shutdown(Shutdown),
    /// Obtains the descriptor and polls it from here on.
    TakeFd(PollInterest),
    /// Drops the end.
    Drop,
    /// Aborts the end.
    Abort,
}

impl EndAction {
    /// Returns whether this consumes the end.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Drop | Self::Abort)
    }
}

/// An [`EndAction`] at one of the ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairStep {
    /// The end.
    pub end: ConnectionEnd,
    /// The operation.
    pub action: EndAction,
}

/// Generates lengths of calls for a direction of this capacity: those near a limit, and any others
/// up to more than the capacity.
fn length(capacity: usize) -> impl Strategy<Value = usize> + Clone {
    let beyond = capacity + capacity / 2 + 2;
    let threshold = refusal_threshold(capacity);
    let edges: Vec<usize> = [0, 1, threshold, capacity / 2, capacity]
        .into_iter()
        .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1])
        .collect();
    prop_oneof![
        3 => select(edges),
        2 => 0..=beyond,
        2 => 0..=beyond.min(64),
        1 => Just(0_usize),
    ]
}

/// Generates lengths for the buffers of a vectored call.
fn lengths(capacity: usize) -> impl Strategy<Value = Vec<usize>> + Clone {
    vec(length(capacity), 0..5)
}

/// Generates directions to shut down.
fn shutdown() -> impl Strategy<Value = Shutdown> + Clone {
    select(vec![Shutdown::Read, Shutdown::Write, Shutdown::Both])
}

/// Generates no timeout, short ones, one that is rejected, and one that is too long for any clock.
fn timeout() -> impl Strategy<Value = Option<Duration>> + Clone {
    select(vec![
        None,
        Some(Duration::from_millis(1)),
        Some(Duration::from_micros(50)),
        Some(Duration::ZERO),
        Some(Duration::MAX),
    ])
}

/// Generates operations that transfer or peek at bytes.
fn transfer(capacity: usize) -> impl Strategy<Value = EndAction> + Clone {
    prop_oneof![
        5 => length(capacity).prop_map(EndAction::Read),
        2 => lengths(capacity).prop_map(EndAction::ReadVectored),
        1 => length(capacity).prop_map(EndAction::Peek),
        6 => length(capacity).prop_map(EndAction::Write),
        2 => lengths(capacity).prop_map(EndAction::WriteVectored),
    ]
}

/// Generates operations at one end of a pair whose directions have about this capacity.
fn action(capacity: usize) -> impl Strategy<Value = EndAction> + Clone {
    prop_oneof![
        48 => transfer(capacity),
        3 => select(vec![Mode::Blocking, Mode::Nonblocking]).prop_map(EndAction::SetMode),
        1 => timeout().prop_map(EndAction::SetReadTimeout),
        1 => timeout().prop_map(EndAction::SetWriteTimeout),
        2 => shutdown().prop_map(EndAction::Shutdown),
        3 => select(vec![PollInterest::Read, PollInterest::Write]).prop_map(EndAction::TakeFd),
        1 => select(vec![EndAction::Drop, EndAction::Abort]),
    ]
}

/// Generates at most `longest` operations at both ends.
pub fn steps(capacity: usize, longest: usize) -> impl Strategy<Value = Vec<PairStep>> {
    let end = select(ConnectionEnd::BOTH.to_vec());
    let step = (end, action(capacity)).prop_map(|(end, action)| PairStep { end, action });
    vec(step, 1..=longest)
}

/// Generates at most `longest` operations at one end.
pub fn actions(capacity: usize, longest: usize) -> impl Strategy<Value = Vec<EndAction>> {
    vec(action(capacity), 1..=longest)
}
