// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::hybrid::CommandParser;
use vsock_proto::{Connection, PortLease, Tick};

use crate::backoff::Backoff;
use crate::busy::Ticket;
use crate::early::Early;
use crate::held::Held;
use crate::link::Link;
use crate::waiting::Turn;

/// What has a place in the table: a host's stream, with or without a connection.
pub(crate) enum Entry {
    /// A host client that has not yet said which port it wants.
    Handshake(Box<Handshake>),
    /// A connection, in any phase.
    Open(Box<Open>),
}

/// A host client's command, as far as it has come.
pub(crate) struct Handshake {
    pub(crate) link: Link,
    pub(crate) parser: CommandParser,
    pub(crate) deadline: Tick,
    /// Its place among those that may have to make room; none before it has one.
    pub(crate) turn: Option<Turn>,
}

/// A connection and what belongs to it.
pub(crate) struct Open {
    pub(crate) conn: Connection,
    /// The host's stream; none before it is there, and after it was closed.
    pub(crate) link: Option<Link>,
    /// The host port, if it was given to this connection.
    pub(crate) lease: Option<PortLease>,
    /// What the host sent behind its command.
    pub(crate) early: Early,
    /// What the guest does not yet have of a message, on a seqpacket connection.
    pub(crate) held: Option<Held>,
    /// When to try again to have a stream, or to have it watched for writing.
    pub(crate) retry: Option<Backoff>,
    /// When to go on writing what waits for the stream, after a turn that did not suffice.
    pub(crate) flush_at: Option<Tick>,
    /// Its place among those that wait for a busy host component.
    pub(crate) ticket: Option<Ticket>,
    /// Whether the table knows the connection by its ports.
    pub(crate) has_key: bool,
    pub(crate) bytes_from_guest: u64,
    pub(crate) bytes_to_guest: u64,
}

impl Open {
    pub(crate) fn new(conn: Connection, link: Option<Link>) -> Self {
        Self {
            conn,
            link,
            lease: None,
            early: Early::NONE,
            held: None,
            retry: None,
            flush_at: None,
            ticket: None,
            has_key: true,
            bytes_from_guest: 0,
            bytes_to_guest: 0,
        }
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let retry = self.retry.map(Backoff::at);
        [self.conn.deadline(), retry, self.flush_at]
            .into_iter()
            .flatten()
            .min()
    }
}
