// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's side of virtqueues in plain memory. Descriptor tables are made by hand, so a test
//! can make them as wrong as it wants. Also streams for tests: one that counts its calls and can be
//! reset, one for messages, and one that panics or lies. And a bitmap that panics, a socket whose
//! close blocks, and a logger.

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "only tests use this, on memory that they have created themselves"
)]

mod descriptor;
mod fuse;
mod letters;
mod lingering;
mod logger;
mod memory;
mod queue;
mod stream;
mod unruly;

pub use descriptor::Descriptor;
pub use fuse::Fuse;
pub use letters::{Letters, Post};
pub use lingering::lingering;
pub use logger::{logged, logged_by_all_threads};
pub use memory::{Memory, bytes, filled, memory};
pub use queue::DriverQueue;
pub use stream::{AfterBytes, Counted};
pub use unruly::{Call, Temper, Unruly};
