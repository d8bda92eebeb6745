// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtio-vsock protocol as a pure state machine (virtio 1.3, section 5.10).
//!
//! A vsock device turns a guest's packets into host streams and back. This crate implements the
//! protocol part of such a device and nothing else: it uses no descriptors, sockets, clocks, locks
//! or threads. It takes packets, events of the host's stream and the time; it returns packets,
//! actions for the stream and the next deadline. A test can therefore replay any sequence of
//! events, at any speed and any number of times.
//!
//! # Main types
//!
//! | Item | Purpose |
//! |---|---|
//! | [`Header`], [`Route`], [`Packet`] | turn 44 bytes of guest memory into checked, typed values |
//! | [`Connection`] | one connection: takes events, returns packets and actions |
//! | [`Phase`] | the stage of a connection's life |
//! | [`Tick`] | a point in the caller's time |
//! | [`handshake`] | the text handshake of host-initiated connections |
//! | [`Config`] | all limits and timeouts |
//!
//! # Guarantees
//!
//! - No input causes a panic, whichever side it comes from.
//! - Payload that the host accepts is never buffered; payload that it does not accept is copied
//!   once.
//! - There is no allocation per packet. [`Config`] bounds the memory held for a connection, and
//!   memory that is no longer needed is freed.
//! - Bytes arrive exactly once and in order; bytes sent before the end of a stream arrive before
//!   that end.
//! - Nothing is sent after an RST, and an RST is never answered with an RST.
//! - Every pending packet is sent as soon as the guest provides a buffer, however long that takes.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        clippy::std_instead_of_alloc,
        clippy::std_instead_of_core
    )
)]
#![cfg_attr(
    test,
    expect(
        clippy::cast_possible_truncation,
        reason = "test values are small or are meant to wrap"
    )
)]

extern crate alloc;

mod addr;
mod backlog;
mod config;
mod conn;
mod credit;
mod ending;
pub mod handshake;
mod header;
mod host;
mod messages;
mod op;
mod packet;
mod pending;
mod progress;
mod route;
mod socket_types;
mod state;
mod tick;
mod violation;

pub use addr::{Cid, CidError, ConnKey, GuestCid, Port};
pub use config::{Config, ConfigBuilder, ConfigError};
pub use conn::{Chunk, Connection, DataGrant, Transmit};
pub use ending::Ending;
pub use header::Header;
pub use host::{Confirmation, HostAction, HostActions, Interest};
pub use op::{MessageFlags, Op, ShutdownFlags, SocketType};
pub use packet::{Body, Credit, Packet};
pub use progress::{Payload, Progress, SlicePayload};
pub use route::{Reject, RejectCause, ResetReply, Route};
pub use socket_types::SocketTypes;
pub use state::Phase;
pub use tick::Tick;
pub use violation::Violation;
