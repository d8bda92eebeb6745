// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens to one connection of a scenario.

use std::net::Shutdown;

use vsock_proto::{Header, ShutdownFlags};

use super::{Op, Scenario};
use crate::guest::SocketState;
use crate::sim::Failure;

impl Scenario {
    pub(super) fn on_link(&mut self, op: &Op) -> Result<(), Failure> {
        let at = match op {
            Op::GuestWrites(at, _)
            | Op::GuestReads(at, _)
            | Op::GuestShutsDown(at, _)
            | Op::GuestCloses(at)
            | Op::GuestResets(at)
            | Op::GuestResizes(at, _)
            | Op::GuestAsks(at)
            | Op::HostWrites(at, _)
            | Op::HostReads(at, _)
            | Op::HostEnds(at)
            | Op::HostCloses(at)
            | Op::HostResets(at)
            | Op::ReadFails(at, ..)
            | Op::WriteFails(at, ..)
            | Op::RawOn(at, ..) => *at,
            _ => return Ok(()),
        };
        let Some(at) = self.index(at) else {
            return Ok(());
        };
        self.guest_side(at, op)?;
        self.host_side(at, op)
    }

    fn guest_side(&mut self, at: usize, op: &Op) -> Result<(), Failure> {
        let (guest, link) = (&mut self.sim.guest, &mut self.links[at]);
        let Some(id) = link.socket else {
            return Ok(());
        };
        match op {
            Op::GuestWrites(_, len) => link.guest_writes(guest, *len),
            Op::GuestReads(_, most) => {
                link.guest_reads(guest, *most)?;
            }
            Op::GuestShutsDown(_, flags) => {
                if flags.contains(ShutdownFlags::SEND) {
                    link.give_up_message(guest);
                }
                if guest.shutdown(id, *flags).is_ok() {
                    link.guest_deaf |= flags.contains(ShutdownFlags::RECEIVE);
                    link.guest_ended |= flags.contains(ShutdownFlags::SEND);
                }
            }
            Op::GuestCloses(_) => {
                link.give_up_message(guest);
                link.spoilt |= guest.state(id) == Some(SocketState::Connecting);
                link.guest_deaf = true;
                let now = self.sim.now();
                self.sim.guest.close(now, id);
            }
            Op::GuestResets(_) => {
                link.spoilt = true;
                guest.reset(id);
            }
            // A message that is under way to a smaller buffer may be too long for it.
            Op::GuestResizes(_, bytes) if link.messages.is_some() => {
                link.spoilt |= (*bytes as usize) < link.longest();
                guest.set_buffer(id, *bytes);
            }
            Op::GuestResizes(_, bytes) => guest.set_buffer(id, *bytes),
            Op::GuestAsks(_) if guest.state(id) == Some(SocketState::Connected) => {
                guest.request_credit(id);
            }
            Op::RawOn(_, header, len) => {
                link.spoilt = true;
                if let Some((from, to)) = guest.ports(id) {
                    let header = Header {
                        src_port: from,
                        dst_port: to,
                        ..*header
                    };
                    self.send_raw(header, *len);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn host_side(&mut self, at: usize, op: &Op) -> Result<(), Failure> {
        let link = &mut self.links[at];
        let Some(host) = &link.host else {
            return Ok(());
        };
        match op {
            Op::HostWrites(_, len) => link.host_writes(*len),
            Op::HostReads(_, most) => {
                link.host_reads(*most)?;
            }
            Op::HostEnds(_) => host.shutdown(Shutdown::Write),
            Op::HostCloses(_) => {
                // Before the guest has answered, leaving takes the connection back, unless something was
                // written.
                link.spoilt |= link.socket.is_none() && !link.owes_guest();
                link.host_deaf = true;
                link.host = None;
            }
            Op::HostResets(_) => {
                (link.spoilt, link.host_deaf) = (true, true);
                if let Some(host) = link.host.take() {
                    host.reset();
                }
            }
            Op::ReadFails(_, call, fault) => {
                host.fail_read(host.calls().0 + call, *fault);
                link.spoilt |= !fault.is_harmless();
            }
            Op::WriteFails(_, call, fault) => {
                host.fail_write(host.calls().1 + call, *fault);
                link.spoilt |= !fault.is_harmless();
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends what a driver would not; every connection may suffer from it.
    pub(super) fn send_raw(&mut self, header: Header, len: usize) {
        for link in &mut self.links {
            (link.spoilt, link.forged) = (true, true);
        }
        let header = Header {
            len: u32::try_from(len).unwrap_or(0),
            ..header
        };
        self.sim.guest.send_raw(header, vec![0xa5; len]);
    }
}
