// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Fuzz targets, each a plain function of some bytes that panics where something is wrong.
//!
//! `cargo xtask fuzz` drives them with a [mutator](driver) that needs no special compiler; another
//! fuzzer calls the same functions. What it has found lies in `corpus`, and is played again by the
//! tests.

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

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its part of the corpus.
    pub name: &'static str,
    /// Plays an input.
    pub fuzz: fn(&[u8]),
    /// Random inputs for it in the tests: about two seconds of them.
    pub trials: u32,
    /// It can kill the process, which leaves nobody to tell of the input.
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
    // It maps what front-ends share.
    Target {
        deadly: true,
        ..target("session", session::fuzz, 100)
    },
];
