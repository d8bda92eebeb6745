// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use vsock_proto::handshake::CommandParser;
use vsock_proto::{Cid, Connection, Tick};

use crate::backoff::Backoff;
use crate::busy::Ticket;
use crate::connection_info::{Birth, ConnectionInfo, Initiator};
use crate::host_stream::HostStream;
use crate::ports::PortLease;
use crate::unsent::Unsent;
use crate::waiting::WaitingId;

/// The contents of a slot in the table: a host's stream, with or without a connection.
pub(crate) enum Entry {
    /// A host client that has not yet sent a complete command.
    Handshake(Box<Handshake>),
    /// A connection, in any phase.
    Connection(Box<ConnectionEntry>),
}

/// A host client, and the part of its command that has arrived.
pub(crate) struct Handshake {
    pub(crate) host: HostStream,
    pub(crate) parser: CommandParser,
    pub(crate) deadline: Tick,
    /// Its place among the clients that may have to make room, once it has one.
    pub(crate) waiting: Option<WaitingId>,
}

/// How a connection takes part in the current batch of packets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Batch {
    /// It is not in the muxer's list.
    Out,
    /// It is in the list, and all of its waiting payload was offered to its stream.
    Offered,
    /// It is in the list, and has waiting payload that was not yet offered to its stream.
    Gathered,
}

/// A connection and its associated state.
pub(crate) struct ConnectionEntry {
    pub(crate) conn: Connection,
    /// The host's stream; `None` until it is available and after it was closed.
    pub(crate) host: Option<HostStream>,
    pub(crate) initiator: Initiator,
    /// The host port, if one was assigned to this connection.
    pub(crate) lease: Option<PortLease>,
    /// Bytes that were read from the stream and not yet sent to the guest.
    pub(crate) unsent: Option<Unsent>,
    /// When to try again to obtain a stream, or to watch it for writing.
    pub(crate) retry: Option<Backoff>,
    /// When to continue to write to the stream, after a turn that was too short.
    pub(crate) flush_at: Option<Tick>,
    /// Whether payload of the current batch waits to be written together.
    pub(crate) batch: Batch,
    /// Its place in the queue for a busy host component.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) birth: Birth,
    pub(crate) bytes_from_guest: u64,
    pub(crate) bytes_to_guest: u64,
    pub(crate) stalls: Stalls,
}

/// What a connection was waiting for at the last review.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stalls {
    /// It could not send because the guest had no credit.
    pub(crate) credit: bool,
    /// Its stream had not accepted everything.
    pub(crate) host: bool,
}

impl ConnectionEntry {
    pub(crate) fn new(
        initiator: Initiator,
        birth: Birth,
        conn: Connection,
        host: Option<HostStream>,
    ) -> Self {
        Self {
            conn,
            host,
            initiator,
            lease: None,
            unsent: None,
            retry: None,
            flush_at: None,
            batch: Batch::Out,
            ticket: None,
            birth,
            bytes_from_guest: 0,
            bytes_to_guest: 0,
            stalls: Stalls::default(),
        }
    }

    /// Returns a description for monitoring.
    pub(crate) fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            id: self.birth.id,
            key: self.conn.key(),
            socket_type: self.conn.socket_type(),
            phase: self.conn.phase(),
            initiator: self.initiator,
            begun: self.birth.at,
            waiting: self.conn.waiting(),
            in_flight: self.conn.in_flight(),
            bytes_from_guest: self.bytes_from_guest,
            bytes_to_guest: self.bytes_to_guest,
        }
    }

    /// Returns whether a sibling initiated the connection.
    pub(crate) fn is_begun_by_guest(&self) -> bool {
        self.initiator == Initiator::Host && self.conn.key().host_cid != Cid::HOST
    }

    /// Returns the earliest time at which work is due.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        let retry = self.retry.map(Backoff::at);
        [self.conn.deadline(), retry, self.flush_at]
            .into_iter()
            .flatten()
            .min()
    }
}
