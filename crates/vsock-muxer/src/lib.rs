// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many connections, many backends, one guest.
//!
//! [`Muxer`] owns the host's streams and the state of every connection. It takes packets of the
//! guest, readiness of descriptors and the time; it fills buffers of the guest, and says what its
//! driver shall do ([`Action`]) and when it wants to be woken. It polls nothing, takes no lock,
//! reads no clock: `&mut Muxer` is the lock.

#![forbid(unsafe_code)]

mod action;
mod backends;
mod backoff;
mod counters;
mod early;
mod entry;
mod error;
mod guest;
mod link;
mod muxer;
mod payload;
mod state;
mod table;
mod token;

pub use action::Action;
pub use counters::{ConnectionInfo, Counters, Endings};
pub use error::MuxerError;
pub use guest::{Allowance, GuestBuffers, GuestPayload};
pub use muxer::Muxer;
pub use state::MuxerState;
pub use token::{BackendId, Readiness, Token};
