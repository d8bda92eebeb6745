// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An in-process vsock backend: a VMM talks to its own guest without a socket to itself.

mod accept_queue;
mod backend;
mod bell;
mod config;
mod connection;
mod connector;
mod counters;
mod error;
mod gate;
mod handshake;
mod hub;
mod listener;
#[cfg(all(test, loom))]
mod loom_model;
mod reader;
mod ring;
mod spin;
mod stream;
mod sync;
mod wait;
mod word;
mod writer;

pub use backend::VsockInnerBackend;
pub use config::{Capacity, ConfigError, DEFAULT_CAPACITY, MAX_CAPACITY, VsockInnerConfig};
pub use connector::VsockInnerConnector;
pub use counters::BackendCounters;
pub use error::StreamError;
pub use handshake::HandshakeError;
pub use hub::{ConnectError, ListenError, Target};
pub use listener::{AcceptError, VsockInnerListener};
pub use reader::VsockInnerReader;
pub use stream::VsockInnerStream;
pub use writer::VsockInnerWriter;
