// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests with several muxers, each with a simulated guest: on one thread in virtual time, and on
//! separate threads.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod compliance;
mod credit;
mod faces;
mod flow;
mod groups;
mod machine;
mod node;
mod threads;
mod world;
