// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio-vsock as a pure state machine (virtio 1.3, section 5.10).
//!
//! A vsock device turns a guest's packets into host streams and back. This crate is what such a
//! device has to know about the protocol, and nothing else: it names no descriptor and no socket,
//! reads no clock, takes no lock and starts no thread. It takes packets, what became of the host's
//! stream, and the time; it gives packets, things to do with the stream, and the next deadline. So
//! every sequence of events can be played in a test, at any speed, any number of times.
//!
//! # The parts
//!
//! | part | what it is |
//! |---|---|
//! | [`Header`], [`Route`], [`Packet`] | 44 bytes of guest memory, checked once and turned into types |
//! | [`Connection`] | one connection: events in, packets and actions out |
//! | [`Phase`] | where it is in its life |
//! | [`Tick`] | the caller's time |
//! | [`handshake`] | the text handshake of host-initiated connections |
//! | [`Config`] | every limit and every timeout |
//!
//! # What holds
//!
//! - No input panics, from whichever side it comes.
//! - Payload is never kept when the host takes it, and never copied more than once when not.
//! - Nothing is allocated per packet. What is kept for a connection is bounded by [`Config`], and
//!   is given back when it is not needed.
//! - Bytes arrive once and in order; those that were sent before an end arrive before it.
//! - After an RST nothing is sent; an RST is never answered by an RST.
//! - Every packet that is owed is sent when the guest provides a buffer, however long that takes.

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
        reason = "numbers of tests are small or are meant to wrap"
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
