// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Steps that affect one connection of a scenario.

use std::mem;
use std::net::Shutdown;

use vsock_proto::{Header, ShutdownFlags};

use super::link::{Component, Harm};
use super::{LinkStep, Scenario};
use crate::guest::SocketState;
use crate::sim::SimFailure;

impl Scenario {
    pub(super) fn on_link(&mut self, at: usize, step: &LinkStep) -> Result<(), SimFailure> {
        let Some(at) = self.index(at) else {
            return Ok(());
        };
        self.guest_side(at, step)?;
        self.host_side(at, step)
    }

    fn guest_side(&mut self, at: usize, step: &LinkStep) -> Result<(), SimFailure> {
        let (guest, link) = (&mut self.sim.guest, &mut self.links[at]);
        let Some(id) = link.socket else {
            return Ok(());
        };
        match step {
            LinkStep::GuestWrites(len) => link.guest_writes(guest, *len),
            LinkStep::GuestReads(most) => {
                link.guest_reads(guest, *most)?;
            }
            LinkStep::GuestShutsDown(flags) => {
                if flags.contains(ShutdownFlags::SEND) {
                    link.give_up_message(guest);
                }
                if guest.shutdown(id, *flags).is_ok() {
                    link.guest_shut = link.guest_shut | *flags;
                }
            }
            LinkStep::GuestCloses => {
                link.give_up_message(guest);
                link.harm_if(guest.state(id) == Some(SocketState::Connecting));
                link.guest_shut = ShutdownFlags::BOTH;
                let now = self.sim.now();
                self.sim.guest.close(now, id);
            }
            LinkStep::GuestResets => {
                link.harm(Harm::Spoilt);
                guest.reset(id);
            }
            // A message on its way to a smaller buffer may be too long for it.
            LinkStep::GuestResizes(bytes) if link.messages.is_some() => {
                link.harm_if((*bytes as usize) < link.longest());
                guest.set_buffer(id, *bytes);
            }
            LinkStep::GuestResizes(bytes) => guest.set_buffer(id, *bytes),
            LinkStep::GuestAsks if guest.state(id) == Some(SocketState::Connected) => {
                guest.request_credit(id);
            }
            LinkStep::Raw(header, len) => {
                link.harm(Harm::Spoilt);
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

    fn host_side(&mut self, at: usize, step: &LinkStep) -> Result<(), SimFailure> {
        let link = &mut self.links[at];
        let Some(host) = link.host() else {
            return Ok(());
        };
        match step {
            LinkStep::HostWrites(len) => link.host_writes(*len),
            LinkStep::HostReads(most) => {
                link.host_reads(*most)?;
            }
            LinkStep::HostEnds => host.shutdown(Shutdown::Write),
            LinkStep::HostCloses => {
                // If the guest has not answered yet, leaving withdraws the connection, unless the
                // component has written data.
                link.harm_if(link.socket.is_none() && !link.owes_guest());
                link.component = Component::Gone;
            }
            LinkStep::HostResets => {
                link.harm(Harm::Spoilt);
                if let Component::There(host) = mem::replace(&mut link.component, Component::Gone) {
                    host.reset();
                }
            }
            LinkStep::ReadFails(call, fault) => {
                host.fail_read(host.calls().0 + call, *fault);
                link.harm_if(!fault.is_harmless());
            }
            LinkStep::WriteFails(call, fault) => {
                host.fail_write(host.calls().1 + call, *fault);
                link.harm_if(!fault.is_harmless());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a packet that a driver would not send. It may affect every connection.
    pub(super) fn send_raw(&mut self, header: Header, len: usize) {
        self.harm_all(Harm::Forged);
        let header = Header {
            len: u32::try_from(len).unwrap_or(0),
            ..header
        };
        self.sim.guest.send_raw(header, vec![0xa5; len]);
    }
}
