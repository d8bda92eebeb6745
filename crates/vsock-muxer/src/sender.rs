// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Moves payload from a host's stream into buffers of the guest.

use std::collections::VecDeque;

use vsock_proto::{DataGrant, Header, Progress, Route};

use crate::action::Action;
use crate::counters::MuxerCounters;
use crate::guest::{Allowance, GuestBuffers};
use crate::host_stream::HostStream;
use crate::unsent::Unsent;

/// Sends the payload of one connection for one turn, within the limits of the grant.
pub(crate) struct Sender<'a> {
    pub(crate) grant: DataGrant<'a>,
    pub(crate) route: &'a Route,
    pub(crate) buffers: &'a mut dyn GuestBuffers,
}

/// The amount that was sent in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) bytes: usize,
    pub(crate) packets: usize,
    /// Why the stream returned no more; `None` if it has not reported a reason.
    stopped: Option<Progress>,
}

impl Sent {
    /// Returns whether nothing was sent although the stream reported no reason: the buffers were
    /// unusable.
    pub(crate) const fn is_stuck(&self) -> bool {
        self.packets == 0 && self.stopped.is_none()
    }

    /// Returns whether the stream has ended.
    pub(crate) fn found_end(&self) -> bool {
        self.stopped == Some(Progress::Closed)
    }

    pub(crate) const fn count(&self, counters: &mut MuxerCounters) {
        counters.bytes_to_guest += self.bytes as u64;
        counters.packets_to_guest += self.packets as u64;
    }

    /// Returns the share of the budget that this used.
    pub(crate) const fn cost(&self) -> usize {
        self.bytes + self.packets * Header::LEN
    }
}

impl Sender<'_> {
    /// Reads from the stream into the guest's buffers.
    pub(crate) fn read(
        mut self,
        host: &mut HostStream,
        limit: usize,
        actions: &mut VecDeque<Action>,
    ) -> Sent {
        let allowance = Allowance {
            bytes: self.grant.bytes().min(limit),
            packets: self.grant.packets(),
            packet_bytes: self.grant.packet_bytes(),
        };
        let mut sent = Sent::default();
        let grant = &mut self.grant;
        let route = self.route;
        let progress = self.buffers.fill(host.stream(), allowance, &mut |len| {
            sent.bytes += len;
            sent.packets += 1;
            route.header(&grant.sent(len))
        });
        if matches!(progress, Progress::Done(_)) {
            return sent;
        }
        if progress == Progress::Pending {
            host.note_drained(actions);
        }
        self.stop(progress, sent)
    }

    /// Sends bytes that came with a client's command, or that a client left when it went. They
    /// precede anything that is read from the stream.
    pub(crate) fn send_bytes(mut self, unsent: &mut Option<Unsent>, limit: usize) -> Sent {
        let mut sent = Sent::default();
        if let Some(bytes) = unsent {
            let rest = bytes.rest().rest;
            let piece = rest
                .get(..self.grant.packet_bytes().min(limit))
                .unwrap_or(rest);
            let len = piece.len();
            let header = self.route.header(&self.grant.sent(len));
            self.buffers.put_bytes(&header, piece);
            (sent.bytes, sent.packets) = (len, 1);
            if bytes.advance(len) {
                *unsent = None;
            }
        }
        sent
    }

    /// Reports to the connection why a read returned no payload.
    pub(crate) fn stop(self, why: Progress, sent: Sent) -> Sent {
        self.grant.finish(why);
        Sent {
            stopped: Some(why),
            ..sent
        }
    }
}
