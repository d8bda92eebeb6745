// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests of the protocol through its public interface. `rig` plays the guest, the host and the
//! clock.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small or are meant to wrap"
)]

mod address;
mod closing;
mod config;
mod connecting;
mod flow;
mod handshake;
mod header;
mod model;
mod panics;
mod places;
mod reset;
mod rig;
mod seqpacket;
