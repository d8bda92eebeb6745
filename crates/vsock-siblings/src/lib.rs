// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests that talk to guests, if one process serves them all.
//!
//! [`Siblings`] is what the devices of these guests share. Each guest [joins](Siblings::join) with
//! its CID and its [`Groups`], and gets a [`SiblingBackend`] for its muxer
//! (`Muxer::add_sibling_backend`). A guest reaches another one by that one's CID if they have a
//! group in common; any other gets an RST, as from a CID that does not exist.
//!
//! ```text
//!  guest 3 ─▶ muxer of 3 ─connect_from─▶ SiblingBackend of 3 ──▶ queue of guest 4
//!                  │                                                  │
//!                  │                     muxer of 4 ◀─accept─ SiblingBackend of 4
//!                  │                         │
//!             VsockInnerStream ◀═ pipes ═▶ VsockInnerStream
//! ```
//!
//! ```
//! use vsock_siblings::{Siblings, VsockAddr, VsockBackend};
//!
//! let siblings = Siblings::new();
//! let web = siblings.join(3, "front+back".parse()?)?;
//! let mut database = siblings.join(4, "back".parse()?)?;
//! let _other = siblings.join(5, "front".parse()?)?;
//!
//! // What the muxers do: guest 3 connects to port 5432 of guest 4.
//! let (from, to) = (VsockAddr { cid: 3, port: 1024 }, VsockAddr { cid: 4, port: 5432 });
//! let near = web.connect_from(from, to)?;
//! let far = database.accept()?;
//! assert_eq!(far.peer(), Some(from));
//!
//! // Guests 4 and 5 have no group in common.
//! assert!(database.connect_from(to, VsockAddr { cid: 5, port: 80 }).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What a connection is
//!
//! Each muxer has its half of it, as if the other guest were a host component, and between the two
//! are the pipes of `vsock-inner`. So half-close, resets and credit pass from end to end. The
//! RESPONSE for the one guest is sent when that of the other has come, an RST when the other has
//! refused; a guest that does not answer is waited for as long as the muxers' configurations say.
//!
//! # What is bounded
//!
//! Between two guests wait, in each direction of a connection, no more than the receiver's buffer
//! holds, nor than the sender's muxer does (`buf_alloc`) and the [capacity](VsockInnerConfig) of
//! the pipe; a guest that does not read stops only those that write to it.
//! [`pending`](VsockInnerConfig::pending) connections may wait for one guest to take them, and
//! other guests may have begun at most half of the connections that its muxer takes. The devices
//! share no lock on the way of bytes: see `docs/concurrency.md`.
//!
//! # A policy of one's own
//!
//! A muxer takes any backend for its connections with other guests. One with other rules looks at
//! both addresses in its [`connect_from`](VsockBackend::connect_from), and asks the
//! [connector](VsockInnerConnector::start_connect_from) of the other guest's [`VsockInnerBackend`]
//! for the stream, as the one here does.
//!
//! # Invariants
//!
//! - No lock is held while another one is taken, nor while a stream is made or dropped.
//! - A guest is connected to none that it has no group in common with.

#![forbid(unsafe_code)]

mod backend;
mod error;
mod groups;
mod members;
mod siblings;

pub use backend::SiblingBackend;
pub use error::SiblingError;
pub use groups::{Groups, GroupsError};
pub use siblings::{JoinError, Siblings};
pub use vsock_inner::{
    Capacity, VsockAddr, VsockBackend, VsockInnerBackend, VsockInnerConfig, VsockInnerConnector,
    VsockStream,
};
