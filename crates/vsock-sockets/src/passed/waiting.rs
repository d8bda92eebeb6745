// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Clients that wait.

use std::time::Instant;

use vsock_backend_api::VsockStream;

use super::client::Client;
use super::register::StreamEntry;
use crate::unix::guarded_socket::GuardedSocket;

/// A client that has no stream yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The deadline for the command. `None` if it is too far away to be represented.
    pub(super) until: Option<Instant>,
    pub(super) stage: Stage,
}

/// What a client waits for.
#[derive(Debug)]
pub(super) enum Stage {
    /// The client has not sent its whole command.
    Asking(Client),
    /// A pump examines the client's descriptor.
    Looking(Looking),
}

/// A client whose descriptor is being examined.
#[derive(Debug)]
pub(super) struct Looking {
    pub(super) client: GuardedSocket,
    pub(super) port: u32,
    pub(super) device: GuardedSocket,
    pub(super) entry: StreamEntry,
}

/// The outcome of a step with a client.
pub(super) enum Outcome {
    /// The client has become a stream.
    Stream(Box<dyn VsockStream>),
    /// The client waits for another event.
    Waits(Stage),
    Refused,
}
