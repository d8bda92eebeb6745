// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Muxers against each other, each with a simulated guest: in virtual time, and on threads of their
//! own.

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
