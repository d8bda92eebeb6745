// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Operations on a connected pair, and `proptest` strategies for them.

use std::net::Shutdown;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, prop_oneof};
use vsock_compliance::poll::PollInterest;
use vsock_compliance::{ConnectionEnd, Mode, refusal_threshold};

/// Something done at one end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EndAction {
    /// A read into a buffer of this length.
    Read(usize),
    /// A read into buffers of these lengths.
    ReadVectored(Vec<usize>),
    /// A read that takes nothing.
    Peek(usize),
    /// A write of this many bytes.
    Write(usize),
    /// A write of buffers of these lengths.
    WriteVectored(Vec<usize>),
    /// A change of the mode.
    SetMode(Mode),
    /// A change of the read timeout.
    SetReadTimeout(Option<Duration>),
    /// A change of the write timeout.
    SetWriteTimeout(Option<Duration>),
    /// A shutdown.
    Shutdown(Shutdown),
    /// From here on, the descriptor is polled.
    TakeFd(PollInterest),
    /// The end is dropped.
    Drop,
    /// The end is aborted.
    Abort,
}

impl EndAction {
    /// Whether nothing is left of the end.
    #[must_use]
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Drop | Self::Abort)
    }
}

/// An [`EndAction`] and where it is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PairStep {
    /// The end.
    pub end: ConnectionEnd,
    /// What it does.
    pub action: EndAction,
}

/// Lengths of calls for a direction of this capacity: those around which something changes, and any
/// other up to beyond it.
fn length(capacity: usize) -> impl Strategy<Value = usize> + Clone {
    let beyond = capacity + capacity / 2 + 2;
    let threshold = refusal_threshold(capacity);
    let edges: Vec<usize> = [0, 1, threshold, capacity / 2, capacity]
        .into_iter()
        .flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1])
        .collect();
    prop_oneof![
        3 => proptest::sample::select(edges),
        2 => 0..=beyond,
        2 => 0..=beyond.min(64),
        1 => Just(0_usize),
    ]
}

/// Lengths of the buffers of a vectored call.
fn lengths(capacity: usize) -> impl Strategy<Value = Vec<usize>> + Clone {
    vec(length(capacity), 0..5)
}

/// The ways to shut down.
fn shutdown() -> impl Strategy<Value = Shutdown> + Clone {
    proptest::sample::select(vec![Shutdown::Read, Shutdown::Write, Shutdown::Both])
}

/// None, a short one, one that is refused, and one too long for any clock.
fn timeout() -> impl Strategy<Value = Option<Duration>> + Clone {
    proptest::sample::select(vec![
        None,
        Some(Duration::from_millis(1)),
        Some(Duration::from_micros(50)),
        Some(Duration::ZERO),
        Some(Duration::MAX),
    ])
}

/// Actions that move bytes or look at them.
fn transfer(capacity: usize) -> impl Strategy<Value = EndAction> + Clone {
    prop_oneof![
        5 => length(capacity).prop_map(EndAction::Read),
        2 => lengths(capacity).prop_map(EndAction::ReadVectored),
        1 => length(capacity).prop_map(EndAction::Peek),
        6 => length(capacity).prop_map(EndAction::Write),
        2 => lengths(capacity).prop_map(EndAction::WriteVectored),
    ]
}

/// Actions at one end of a pair whose directions have about this capacity.
fn action(capacity: usize) -> impl Strategy<Value = EndAction> + Clone {
    prop_oneof![
        48 => transfer(capacity),
        3 => proptest::sample::select(vec![Mode::Blocking, Mode::Nonblocking]).prop_map(EndAction::SetMode),
        1 => timeout().prop_map(EndAction::SetReadTimeout),
        1 => timeout().prop_map(EndAction::SetWriteTimeout),
        2 => shutdown().prop_map(EndAction::Shutdown),
        3 => proptest::sample::select(vec![PollInterest::Read, PollInterest::Write]).prop_map(EndAction::TakeFd),
        1 => proptest::sample::select(vec![EndAction::Drop, EndAction::Abort]),
    ]
}

/// Operations at both ends, at most `longest`.
pub fn steps(capacity: usize, longest: usize) -> impl Strategy<Value = Vec<PairStep>> {
    let end = proptest::sample::select(ConnectionEnd::BOTH.to_vec());
    let step = (end, action(capacity)).prop_map(|(end, action)| PairStep { end, action });
    vec(step, 1..=longest)
}

/// Actions at one end, at most `longest`.
pub fn actions(capacity: usize, longest: usize) -> impl Strategy<Value = Vec<EndAction>> {
    vec(action(capacity), 1..=longest)
}
