// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that host processes pass, each of which becomes a stream.
//!
//! ```text
//! client            backend (the device's thread)          pump (a thread for each descriptor)
//! ──────            ─────────────────────────────          ───────────────────────────────────
//! "passfd\n"  ────▶ waits for the command
//! "PORT", fd  ────▶ has a pump started, with it ─────────▶ looks whether it can be used
//!                   gives the device a stream  ◀══ socket pair ══▶  moves bytes  ◀══ descriptor
//! "OK n\n"    ◀──── once the guest has accepted
//! ```
//!
//! A passed descriptor is shared with the process that passed it. That process can make it blocking
//! at any time, can hold the kernel's lock of a pipe or socket for as long as it likes, and can
//! pass a file of a file system that never answers: there even a look at its type waits. No flag of
//! a system call bounds all that. So the device's thread never touches the descriptor, not even to
//! close it. It sees one end of a socket pair of its own, and a thread for each descriptor waits in
//! its place.

mod backend;
mod client;
mod command;
mod config;
mod descriptor;
mod pump;
mod register;
mod starter;
mod stream;
mod timer;

pub use backend::PassFdBackend;
pub use config::PassFdConfig;
pub use stream::PassedStream;
