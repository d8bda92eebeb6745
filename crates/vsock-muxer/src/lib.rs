// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, many backends, one guest.
//!
//! [`Muxer`] owns the host's streams and the state of every connection. It takes packets of the
//! guest, readiness of descriptors and the time; it fills buffers of the guest, and says what its
//! driver shall do ([`Action`]) and when it wants to be woken. It polls nothing, takes no lock,
//! reads no clock: `&mut Muxer` is the lock.

#![forbid(unsafe_code)]

mod action;
mod counters;
mod error;
mod guest;
mod muxer;
mod token;

pub use action::Action;
pub use counters::Counters;
pub use error::MuxerError;
pub use guest::{Allowance, GuestBuffers, GuestPayload};
pub use muxer::Muxer;
pub use token::{BackendId, Readiness, Token};
