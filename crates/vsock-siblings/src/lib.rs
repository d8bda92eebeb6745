// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Vsock connections between guests that are served by the same process.
//!
//! The devices of these guests share a [`Siblings`]. Each guest [joins](Siblings::join) with its
//! CID and its [`Groups`], and gets a [`SiblingBackend`] for its muxer
//! (`Muxer::add_sibling_backend`). A guest can connect to another guest's CID if the two have a
//! group in common. Otherwise it gets an RST, as for a CID that does not exist.
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
//! // The muxers do this: guest 3 connects to port 5432 of guest 4.
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
//! # How a connection works
//!
//! The muxers of both guests treat the connection as one with a host component, and the pipes of
//! `vsock-inner` connect the two halves. Half-closes, resets and credit therefore pass from end to
//! end. The connecting guest gets its RESPONSE when the other guest has sent one, and an RST if the
//! other guest refuses. How long to wait for an answer is part of the muxers' configuration.
//!
//! # Bounds
//!
//! In each direction of a connection, the bytes between two guests have two bounds: the receiving
//! guest's buffer; and the buffer of the sender's muxer (`buf_alloc`) plus the
//! [capacity](VsockInnerConfig) of the pipe. A guest that does not read stops only the guests that
//! write to it. At most [`pending`](VsockInnerConfig::pending) connections can wait for a guest to
//! accept them. Other guests can open at most half of the connections that a guest's muxer allows.
//! The devices share no lock on the data path: see `docs/concurrency.md`.
//!
//! # Implementing another policy
//!
//! A muxer accepts any backend for connections with other guests. A backend with other rules checks
//! both addresses in [`connect_from`](VsockBackend::connect_from). Like this crate's backend, it
//! can then get the stream from the other guest's [`VsockInnerBackend`], through its
//! [connector](VsockInnerConnector::start_connect_from).
//!
//! # Invariants
//!
//! - No lock is held while another lock is taken, or while a stream is created or dropped.
//! - Two guests are connected only if they have a group in common.

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
