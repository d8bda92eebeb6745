// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Fuzz targets. Each is a function of bytes that panics if a rule is broken.
//!
//! `cargo xtask fuzz` runs them with a [mutator](driver) that needs no special compiler. Other
//! fuzzers can call the same functions. Inputs that found a defect are in `corpus`, and the tests
//! replay them.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a target fails by panicking"
)]

pub mod bytes;
mod component;
pub mod connection;
pub mod device;
pub mod driver;
pub mod handshake;
pub mod header;
pub mod muxer;
mod rig;
pub mod session;
pub mod shifting;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The target's name, and the name of its directory in the corpus.
    pub name: &'static str,
    /// Runs one input.
    pub fuzz: fn(&[u8]),
    /// How many random inputs the tests run: about two seconds of them.
    pub trials: u32,
    /// Whether a failure can kill the process, so that the input must be saved first.
    pub deadly: bool,
}

const fn target(name: &'static str, fuzz: fn(&[u8]), trials: u32) -> Target {
    let deadly = false;
    Target {
        name,
        fuzz,
        trials,
        deadly,
    }
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("header", header::fuzz, 20_000),
    target("handshake", handshake::fuzz, 20_000),
    target("connection", connection::fuzz, 20_000),
    target("muxer", muxer::fuzz, 1500),
    target("device", device::fuzz, 1500),
    target("shifting", shifting::fuzz, 4000),
    // It maps memory that front-ends share.
    Target {
        deadly: true,
        ..target("session", session::fuzz, 100)
    },
];
