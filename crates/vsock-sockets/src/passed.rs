// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Streams over descriptors that host processes pass.
//!
//! ```text
//! client            backend (device thread)                pump (a thread for each descriptor)
//! ──────            ───────────────────────                ───────────────────────────────────
//! "passfd\n"  ────▶ waits for the command
//! "PORT", fd  ────▶ hands over the descriptor ───────────▶ checks whether it can be used
//!                   gives the device a stream  ◀══ socket pair ══▶  moves bytes  ◀══ descriptor
//! "OK n\n"    ◀──── once the guest has accepted
//! ```
//!
//! The process that passes a descriptor keeps sharing it. It can make the descriptor blocking at
//! any time, and can hold the kernel's lock of a pipe or socket for as long as it likes. It can
//! even pass a file of a file system that never answers, for which `fstat` blocks. No flag of a
//! system call prevents all of this.
//!
//! The device thread therefore never touches the descriptor, not even to close it. It uses one end
//! of a socket pair, and a separate thread for each descriptor does the blocking calls.

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
mod waiting;

pub use backend::PassFdBackend;
pub use config::PassFdConfig;
pub use stream::PassedStream;
