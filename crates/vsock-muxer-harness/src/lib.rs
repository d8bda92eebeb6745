// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests for authors of a vsock muxer, or of a transport under one.
//!
//! - [`model`]: what a connection does, as two byte queues with ends; [`lockstep`] drives a real
//!   connection and the model with the same steps, which [`strategy`] makes for `proptest`.
//! - [`sim`]: a muxer between a simulated [`guest`] and a simulated [`host`], in virtual time, with
//!   every packet and every readiness checked; [`scenario`] lets them live.
//!
//! The sentences that a single stream or backend must keep are checked by `vsock-compliance`.
//!
//! # Testing a muxer
//!
//! Another muxer than [`vsock_muxer::Muxer`] implements [`sim::DeviceUnderTest`], and is given
//! streams by [`host::SimHost::backend`]. Then [`sim::Sim::with_device`] simulates it; every method
//! of the simulation says what the muxer did wrong, if it did. The example `slow_reader` of this
//! crate watches a guest being blocked.
//!
//! # Invariants
//!
//! - No test of this crate sleeps to make something happen: it waits for the thing, with a
//!   deadline.
//! - This crate knows the traits of `vsock-backend-api` and the seam of `vsock-muxer`, and no
//!   transport.
//! - What a simulation does depends on its operations alone: on no clock, thread, or address.

#![forbid(unsafe_code)]

pub mod guest;
pub mod host;
pub mod lockstep;
pub mod model;
pub mod scenario;
pub mod sim;
pub mod strategy;

// What the signatures of this crate name.
pub use {proptest, vsock_backend_api, vsock_compliance, vsock_muxer, vsock_proto};
