// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Packets that arrived together: small payloads for one stream are written in one call.

use std::mem;

use vsock_proto::{Body, Header, Packet, SocketType, Tick};

use crate::entry::{Batch, ConnectionEntry};
use crate::guest::GuestPayload;
use crate::host_stream::HostStream;
use crate::muxer::Muxer;
use crate::muxer::guest_side::Arrival;
use crate::payload::Offer;
use crate::slot::Slot;

/// The longest payload, in bytes, that is copied to be written together with others. A separate
/// system call for it costs three times as much as copying it.
const MAX_PIECE: u32 = 4096;

/// The maximum number of bytes that are written together: as many as the kernel puts into one
/// buffer of a Unix socket.
const MAX_TOGETHER: usize = 32 * 1024;

impl Muxer {
    /// Handles a packet that arrived together with others, like [`on_packet`](Self::on_packet).
    /// Pass all of them, and then call [`end_batch`](Self::end_batch).
    ///
    /// A system call for each small payload costs up to ten times as much as copying several and
    /// writing them together. The muxer therefore gathers payloads of up to 4 KiB for a stream that
    /// is not [inside the process](vsock_backend_api::VsockBackendType::Inner), up to 32 KiB per
    /// connection, and writes them in one call. It writes what it has gathered before it handles
    /// any other packet of that connection, so the host sees the same bytes, followed by the same
    /// end, as if each packet had arrived alone.
    ///
    /// There is one exception: a packet with payload and impossible credit breaks its connection,
    /// and the payload gathered before it is lost.
    ///
    /// If the caller never ends a batch, nothing gets stuck: while anything is gathered, the
    /// [deadline](Self::deadline) is due immediately.
    ///
    /// ```
    /// # use vsock_muxer::{GuestPayload, Header, Muxer, Tick};
    /// fn take(muxer: &mut Muxer, now: Tick, batch: &mut [(Header, &[u8])]) {
    ///     for (header, payload) in batch {
    ///         if muxer.can_take_packet() {
    ///             muxer.on_packet_of_batch(now, header, payload);
    ///         }
    ///     }
    ///     muxer.end_batch(now);
    /// }
    /// # let config = vsock_muxer::Config::default();
    /// # let mut muxer = Muxer::new(vsock_muxer::GuestCid::try_from(3).unwrap(), config);
    /// # take(&mut muxer, Tick::ZERO, &mut [(Header::default(), b"")]);
    /// ```
    pub fn on_packet_of_batch(
        &mut self,
        now: Tick,
        header: &Header,
        payload: &mut dyn GuestPayload,
    ) {
        self.unwinding(|muxer| muxer.take_packet(now, header, payload, Arrival::WithOthers));
    }

    /// Writes what was gathered from a [batch](Self::on_packet_of_batch), if anything.
    pub fn end_batch(&mut self, now: Tick) {
        if self.batch.is_empty() {
            return;
        }
        self.unwinding(|muxer| {
            // Nothing is added to the list during the loop, and a connection that has left the
            // table is not found.
            let mut listed = mem::take(&mut muxer.batch);
            for slot in listed.drain(..) {
                let Some(entry) = muxer.table.connection(slot) else {
                    continue;
                };
                let is_gathered = entry.batch == Batch::Gathered;
                if is_gathered {
                    entry.flush(now);
                }
                entry.batch = Batch::Out;
                if is_gathered {
                    muxer.review(now, slot);
                }
            }
            // Keep the memory for the next batch.
            muxer.batch = listed;
        });
    }

    /// Records that the payload in this connection's backlog is to be written together with what
    /// follows.
    pub(super) fn gather(&mut self, now: Tick, slot: Slot) {
        let Some(entry) = self.table.connection(slot) else {
            return;
        };
        if entry.batch == Batch::Out {
            self.batch.push(slot);
        }
        entry.batch = Batch::Gathered;
        // A deadline in case the caller never ends the batch.
        entry.flush_at = Some(now);
    }
}

impl ConnectionEntry {
    /// Prepares for a packet: writes what was gathered, unless the packet joins it. Returns when
    /// the packet's payload is to be offered to the stream.
    pub(super) fn prepare_for(&mut self, now: Tick, packet: &Packet, arrival: Arrival) -> Offer {
        let joins = arrival == Arrival::WithOthers
            && packet.socket_type == SocketType::Stream
            && matches!(packet.body, Body::Data(_))
            && packet.len <= MAX_PIECE
            && self.host.as_ref().is_some_and(HostStream::gathers);
        if self.batch == Batch::Gathered && !(joins && self.has_room(packet.len as usize)) {
            self.flush(now);
        }
        if joins { Offer::WithOthers } else { Offer::Now }
    }

    /// Returns whether this many more bytes can be gathered. The muxer must write what it has
    /// gathered before it checks a packet against the window: the packet may be within the window
    /// once the stream has accepted those bytes.
    fn has_room(&self, more: usize) -> bool {
        let together = self.conn.waiting().saturating_add(more);
        together <= MAX_TOGETHER.min(self.conn.window() as usize)
    }
}
