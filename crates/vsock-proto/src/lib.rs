// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! virtio-vsock as a pure state machine (virtio 1.3, section 5.10).
//!
//! A vsock device turns a guest's packets into host streams and back. This crate is what such a
//! device has to know about the protocol, and nothing else: it names no descriptor and no socket,
//! reads no clock, takes no lock and starts no thread. It takes packets, what became of the host's
//! stream, and the time; it gives packets, things to do with the stream, and the next deadline. So
//! every sequence of events can be played in a test, at any speed, as often as one likes.
//!
//! # The parts
//!
//! | part | what it is |
//! |---|---|
//! | [`Header`], [`Route`], [`Packet`] | 44 bytes of guest memory, checked once and turned into types |
//! | [`Connection`] | one connection: see [`conn`] for how it is driven |
//! | [`state`] | its states, as tables |
//! | [`credit`] | its two windows |
//! | [`Backlog`] | what the host has not yet taken |
//! | [`RxQueue`] | who is next to fill a buffer of the guest |
//! | [`Timers`], [`Tick`] | deadlines, in the caller's time |
//! | [`PortAllocator`] | host ports, with owners |
//! | [`hybrid`] | the text handshake of host-initiated connections |
//! | [`Config`] | every limit and every timeout |
//!
//! # What holds
//!
//! - No input panics, whoever it comes from.
//! - Payload is never held when the host takes it, and never copied more than once when not.
//! - Nothing is allocated per packet. What is kept for a connection is bounded by [`Config`], and is
//!   given back when it is not needed.
//! - Bytes arrive once and in order; those that were sent before an end arrive before it.
//! - After an RST nothing is sent; an RST is never answered by an RST.
//! - Every packet that is owed is sent when the guest provides a buffer, however long that takes.

#![no_std]
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

extern crate alloc;

mod actions;
mod addr;
mod backlog;
mod config;
pub mod conn;
pub mod credit;
mod error;
mod header;
pub mod hybrid;
mod messages;
mod op;
mod packet;
pub mod pending;
mod ports;
mod progress;
mod route;
mod rxq;
mod slot;
mod socket_types;
pub mod state;
mod tick;
mod timers;

pub use actions::{HostAction, HostActions};
pub use addr::{Cid, ConnKey, GuestCid, Port};
pub use backlog::Backlog;
pub use config::{Config, ConfigBuilder, ConfigError};
pub use conn::{Chunk, Connection, DataGrant, Ending, Greeting, Interest, Transmit};
pub use error::{
    BacklogFull, CidError, LineError, NoPortLeft, Reject, RejectCause, ResetsFull, Violation,
};
pub use header::Header;
pub use op::{MessageFlags, Op, ShutdownFlags, SocketType};
pub use packet::{Body, Credit, Packet};
pub use ports::{PortAllocator, PortLease};
pub use progress::{Payload, Progress, SlicePayload};
pub use route::{ResetReply, Route};
pub use rxq::{Next, RxQueue};
pub use slot::Slot;
pub use socket_types::SocketTypes;
pub use tick::Tick;
pub use timers::Timers;
