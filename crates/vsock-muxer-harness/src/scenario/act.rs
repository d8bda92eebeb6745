// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What happens to one connection of a scenario.

use std::net::Shutdown;

use vsock_proto::{Header, ShutdownFlags};

use super::{Scenario, ScenarioStep};
use crate::guest::SocketState;
use crate::sim::SimFailure;

impl Scenario {
    pub(super) fn on_link(&mut self, step: &ScenarioStep) -> Result<(), SimFailure> {
        let at = match step {
            ScenarioStep::GuestWrites(at, _)
            | ScenarioStep::GuestReads(at, _)
            | ScenarioStep::GuestShutsDown(at, _)
            | ScenarioStep::GuestCloses(at)
            | ScenarioStep::GuestResets(at)
            | ScenarioStep::GuestResizes(at, _)
            | ScenarioStep::GuestAsks(at)
            | ScenarioStep::HostWrites(at, _)
            | ScenarioStep::HostReads(at, _)
            | ScenarioStep::HostEnds(at)
            | ScenarioStep::HostCloses(at)
            | ScenarioStep::HostResets(at)
            | ScenarioStep::ReadFails(at, ..)
            | ScenarioStep::WriteFails(at, ..)
            | ScenarioStep::RawOn(at, ..) => *at,
            _ => return Ok(()),
        };
        let Some(at) = self.index(at) else {
            return Ok(());
        };
        self.guest_side(at, step)?;
        self.host_side(at, step)
    }

    fn guest_side(&mut self, at: usize, step: &ScenarioStep) -> Result<(), SimFailure> {
        let (guest, link) = (&mut self.sim.guest, &mut self.links[at]);
        let Some(id) = link.socket else {
            return Ok(());
        };
        match step {
            ScenarioStep::GuestWrites(_, len) => link.guest_writes(guest, *len),
            ScenarioStep::GuestReads(_, most) => {
                link.guest_reads(guest, *most)?;
            }
            ScenarioStep::GuestShutsDown(_, flags) => {
                if flags.contains(ShutdownFlags::SEND) {
                    link.give_up_message(guest);
                }
                if guest.shutdown(id, *flags).is_ok() {
                    link.guest_deaf |= flags.contains(ShutdownFlags::RECEIVE);
                    link.guest_ended |= flags.contains(ShutdownFlags::SEND);
                }
            }
            ScenarioStep::GuestCloses(_) => {
                link.give_up_message(guest);
                link.spoilt |= guest.state(id) == Some(SocketState::Connecting);
                link.guest_deaf = true;
                let now = self.sim.now();
                self.sim.guest.close(now, id);
            }
            ScenarioStep::GuestResets(_) => {
                link.spoilt = true;
                guest.reset(id);
            }
            // A message that is under way to a smaller buffer may be too long for it.
            ScenarioStep::GuestResizes(_, bytes) if link.messages.is_some() => {
                link.spoilt |= (*bytes as usize) < link.longest();
                guest.set_buffer(id, *bytes);
            }
            ScenarioStep::GuestResizes(_, bytes) => guest.set_buffer(id, *bytes),
            ScenarioStep::GuestAsks(_) if guest.state(id) == Some(SocketState::Connected) => {
                guest.request_credit(id);
            }
            ScenarioStep::RawOn(_, header, len) => {
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

    fn host_side(&mut self, at: usize, step: &ScenarioStep) -> Result<(), SimFailure> {
        let link = &mut self.links[at];
        let Some(host) = &link.host else {
            return Ok(());
        };
        match step {
            ScenarioStep::HostWrites(_, len) => link.host_writes(*len),
            ScenarioStep::HostReads(_, most) => {
                link.host_reads(*most)?;
            }
            ScenarioStep::HostEnds(_) => host.shutdown(Shutdown::Write),
            ScenarioStep::HostCloses(_) => {
                // Before the guest has answered, leaving takes the connection back, unless something was
                // written.
                link.spoilt |= link.socket.is_none() && !link.owes_guest();
                link.host_deaf = true;
                link.host = None;
            }
            ScenarioStep::HostResets(_) => {
                (link.spoilt, link.host_deaf) = (true, true);
                if let Some(host) = link.host.take() {
                    host.reset();
                }
            }
            ScenarioStep::ReadFails(_, call, fault) => {
                host.fail_read(host.calls().0 + call, *fault);
                link.spoilt |= !fault.is_harmless();
            }
            ScenarioStep::WriteFails(_, call, fault) => {
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
