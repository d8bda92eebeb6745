// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the muxer through its public interface.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

mod accepting;
mod batch;
mod busy;
mod client_gone;
mod closing;
mod connecting;
mod crowd;
mod flow;
mod guest_initiated;
mod handshake;
mod hostile;
mod inspect;
mod lifetime;
mod messages;
mod panics;
mod pause;
mod shutdown;
mod siblings;
mod stream;
mod watching;
mod world;
