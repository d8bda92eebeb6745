// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests for authors of a vsock muxer, or of a transport below one.
//!
//! - [`model`] is a reference model of a connection: two byte queues, each with two ends.
//!   [`lockstep`] drives a real connection and the model with the same steps, which [`strategy`]
//!   generates for `proptest`.
//! - [`sim`] runs a muxer between a simulated [`guest`] and a simulated [`host`] in virtual time,
//!   and checks every packet and every readiness event. [`scenario`] generates what guest and host
//!   do.
//!
//! `vsock-compliance` checks the promises that a single stream or backend must keep.
//!
//! # Testing a muxer
//!
//! To test a muxer other than [`vsock_muxer::Muxer`], implement [`sim::DeviceUnderTest`] for it,
//! pass it to [`sim::Sim::with_device`], and take backends for it from [`host::SimHost::backend`].
//! Every method of the simulation returns an error if the muxer breaks a rule. The example
//! `slow_reader` of this crate shows how a slow host makes the guest block.
//!
//! # Invariants
//!
//! - No test of this crate sleeps to make something happen: it waits for the event itself, with a
//!   deadline.
//! - This crate depends on the traits of `vsock-backend-api` and the interface of `vsock-muxer`,
//!   and on no transport.
//! - A simulation depends only on its operations, not on a clock, thread or address.

#![forbid(unsafe_code)]

pub mod guest;
pub mod host;
pub mod lockstep;
pub mod model;
pub mod scenario;
pub mod sim;
pub mod strategy;

// The types in the signatures of this crate.
pub use {proptest, vsock_backend_api, vsock_compliance, vsock_muxer, vsock_proto};
