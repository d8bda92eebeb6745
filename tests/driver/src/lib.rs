// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The driver's side of virtqueues in plain memory: descriptor tables made by hand, so that they
//! can be as wrong as a test wants. And streams: one that counts its calls and may be reset, one
//! that keeps messages apart, one that panics and lies. And a bitmap that panics.

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_panics_doc,
    clippy::expect_used,
    reason = "only tests use this, and memory that they have laid out themselves is there"
)]

mod descriptor;
mod fuse;
mod letters;
mod memory;
mod queue;
mod stream;
mod unruly;

pub use descriptor::Descriptor;
pub use fuse::Fuse;
pub use letters::{Letters, Post};
pub use memory::{Memory, bytes, filled, memory};
pub use queue::DriverQueue;
pub use stream::{AfterBytes, Counted};
pub use unruly::{Call, Temper, Unruly};
