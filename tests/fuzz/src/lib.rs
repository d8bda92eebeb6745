// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Fuzz targets, each a plain function of some bytes that panics where something is wrong.
//!
//! `cargo xtask fuzz` drives them with a [mutator](driver) that needs no special compiler; another fuzzer
//! calls the same functions. What it has found lies in `corpus`, and is played again by the tests.

#![forbid(unsafe_code)]

pub mod bytes;
pub mod connection;
pub mod device;
pub mod driver;
pub mod handshake;
pub mod header;
pub mod muxer;

/// A target: its name, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("header", header::fuzz),
    ("handshake", handshake::fuzz),
    ("connection", connection::fuzz),
    ("muxer", muxer::fuzz),
    ("device", device::fuzz),
];
