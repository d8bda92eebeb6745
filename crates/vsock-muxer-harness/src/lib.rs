// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests for whoever implements a vsock backend, or a muxer.
//!
//! - [`compliance`]: a suite that checks every stream and backend against the contract of this
//!   workspace, sentence by sentence.
//! - [`model`]: what a connection does, as two byte queues with ends; [`lockstep`] drives a real
//!   connection and the model with the same operations, which [`strategy`] makes for `proptest`.
//! - [`sim`]: a muxer between a simulated [`guest`] and a simulated [`host`], in virtual time, with every
//!   packet and every readiness checked; [`scenario`] lets them live, [`faulty`] and [`hostile`] make it
//!   hard. [`rig`] is the guest beside real backends.
//! - [`pump`]: many bytes through a connection, each side waiting in its own way.
//! - [`poll`], [`call`], [`fd`], [`pattern`]: what such tests are made of: deadlines, readiness of
//!   real descriptors, calls that may wait, bytes that tell where they belong.
//!
//! # Testing a transport
//!
//! Say how to get a connected pair, and have it judged. Here it is a pair of Unix sockets, which does
//! not share every sentence: those are excepted by name, and the suite checks that they need to be.
//!
//! ```no_run
//! use std::io;
//! use std::os::unix::net::UnixStream;
//!
//! use vsock_muxer_harness::compliance::{Exception, judge_streams};
//! use vsock_muxer_harness::source::{Mode, PairSource, Room, Stream};
//!
//! struct Sockets;
//!
//! impl PairSource for Sockets {
//!     fn pair(&self) -> io::Result<(Stream, Stream)> {
//!         let (application, device) = UnixStream::pair()?;
//!         Ok((Box::new(application), Box::new(device)))
//!     }
//!     fn room(&self) -> (Room, Room) {
//!         (Room::Unknown, Room::Unknown)
//!     }
//!     fn modes(&self) -> (Mode, Mode) {
//!         (Mode::Blocking, Mode::Blocking)
//!     }
//! }
//!
//! let hup = Exception { name: "hup_is_never_reported", reason: "a socket reports HUP" };
//! let report = judge_streams(&Sockets, &[hup /* and what else it does otherwise */]);
//! assert!(report.is_good(), "{report}");
//! ```
//!
//! # Testing a muxer
//!
//! Another muxer than [`vsock_muxer::Muxer`] implements [`sim::Device`], and is given streams by
//! [`host::Host::backend`]. Then [`sim::Sim::with_device`] simulates it; every method of the simulation
//! says what the muxer did wrong, if it did. The example `slow_reader` of this crate watches a guest
//! being held up.
//!
//! # Invariants
//!
//! - No test of this crate sleeps to make something happen: it waits for the thing, with a deadline.
//! - This crate knows the traits of `vsock-backend-api` and the seam of `vsock-muxer`, and no transport.
//! - What a simulation does depends on its operations alone: on no clock, thread, or address.

#![forbid(unsafe_code)]

pub mod call;
pub mod compliance;
pub mod faulty;
pub mod fd;
pub mod guest;
pub mod host;
pub mod hostile;
pub mod lockstep;
pub mod model;
pub mod pattern;
pub mod poll;
pub mod pump;
pub mod rig;
pub mod scenario;
pub mod sim;
pub mod source;
pub mod strategy;
