// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Payload from a host's stream into buffers of the guest.

use std::collections::VecDeque;

use vsock_proto::{DataGrant, Header, Progress, Route};

use crate::action::Action;
use crate::counters::MuxerCounters;
use crate::guest::{Allowance, GuestBuffers};
use crate::host_stream::HostStream;
use crate::unsent::Unsent;

/// Sends the payload of one connection for one turn, as far as the grant goes.
pub(crate) struct Sender<'a> {
    pub(crate) grant: DataGrant<'a>,
    pub(crate) route: &'a Route,
    pub(crate) buffers: &'a mut dyn GuestBuffers,
}

/// What a turn has sent to the guest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) bytes: usize,
    pub(crate) packets: usize,
    /// Why the stream has no more; `None` if it has not said.
    stopped: Option<Progress>,
}

impl Sent {
    /// Nothing was sent, and the stream has not said why: the buffers were of no use.
    pub(crate) const fn is_stuck(&self) -> bool {
        self.packets == 0 && self.stopped.is_none()
    }

    /// Whether the stream has come to its end.
    pub(crate) fn found_end(&self) -> bool {
        self.stopped == Some(Progress::Closed)
    }

    pub(crate) const fn count(&self, counters: &mut MuxerCounters) {
        counters.bytes_to_guest += self.bytes as u64;
        counters.packets_to_guest += self.packets as u64;
    }

    /// What that is of the budget.
    pub(crate) const fn cost(&self) -> usize {
        self.bytes + self.packets * Header::LEN
    }
}

impl Sender<'_> {
    /// Reads from the stream into buffers.
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

    /// Sends what came with a client's command, or was left by a client that has gone, before
    /// anything is read.
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

    /// Tells the connection what a read has found instead of payload.
    pub(crate) fn stop(self, why: Progress, sent: Sent) -> Sent {
        self.grant.finish(why);
        Sent {
            stopped: Some(why),
            ..sent
        }
    }
}
