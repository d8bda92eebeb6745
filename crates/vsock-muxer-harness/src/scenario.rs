// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whole lives of a guest and a host, as sequences of steps.
//!
//! A [`Scenario`] is a [`Sim`] with programs in the guest and components on the host, which act
//! according to [`ScenarioStep`]s. All bytes that they send are known, so all bytes that arrive can
//! be compared. [`calm`] and [`rough`] generate steps for `proptest`; [`from_seed`] generates a
//! sequence that can be reproduced. [`Scenario::wind_down`] ends everything and checks that nothing
//! is left.
//!
//! ```
//! use vsock_muxer_harness::guest::GuestConfig;
//! use vsock_muxer_harness::scenario::{Delivery, Scenario, calm, from_seed};
//! use vsock_muxer_harness::sim::{SimConfig, SimFailure};
//!
//! # fn main() -> Result<(), SimFailure> {
//! let mut scenario = Scenario::new(SimConfig::default(), GuestConfig::default())?;
//! for step in from_seed(calm(), 42, 100) {
//!     scenario.apply(&step)?;
//! }
//! scenario.wind_down(Delivery::Complete)
//! # }
//! ```

mod act;
mod link;
mod messages;
mod step;

use std::time::Duration;

use vsock_muxer::Muxer;
use vsock_proto::{Header, ShutdownFlags, SocketType};

use crate::guest::{GuestConfig, SocketState};
use crate::host::{HostBackend, StreamKind};
use crate::sim::{Sim, SimConfig, SimFailure};
use link::{Component, Harm, Link, Opener};
pub use step::{LinkStep, ScenarioStep, calm, from_seed, rough};

/// The capacity of a simulated stream in bytes.
const CAPACITY: usize = 20_000;
/// The maximum number of packets of a message from the host, if the packets are full.
const PACKETS: usize = 300;
/// The maximum number of connections in one scenario.
const MOST: usize = 6;
/// The first port of a component, and of a program in the guest.
const FIRST_PORT: u32 = 1000;

/// What must have arrived when a scenario ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// Every byte that was sent on a connection that was not harmed.
    Complete,
    /// Any part: connections may have been broken off.
    Partial,
}

/// One life of a guest and a host. See the [module](self).
#[derive(Debug)]
pub struct Scenario {
    sim: Sim<Muxer>,
    backends: [HostBackend; 2],
    links: Vec<Link>,
    next_port: u32,
    /// The maximum length of a message from the host, in bytes.
    longest: usize,
}

impl Scenario {
    /// Creates a scenario with two backends, one for each kind of stream, and no connections.
    ///
    /// # Errors
    ///
    /// The muxer breaks a rule.
    pub fn new(config: SimConfig, guest: GuestConfig) -> Result<Self, SimFailure> {
        let room = guest.rx_buffer_bytes.saturating_sub(Header::LEN);
        let longest = guest.buf_alloc.min(config.muxer.max_message()) as usize;
        let longest = longest.min(room.saturating_mul(PACKETS));
        let mut sim = Sim::new(config, guest)?;
        let backends = [
            sim.add_backend(StreamKind::Socket, CAPACITY)?,
            sim.add_backend(StreamKind::Channel, CAPACITY)?,
        ];
        Ok(Self {
            sim,
            backends,
            links: Vec::new(),
            next_port: FIRST_PORT,
            longest,
        })
    }

    /// Returns the simulation.
    pub const fn sim(&mut self) -> &mut Sim<Muxer> {
        &mut self.sim
    }

    /// Takes a step, followed by one turn of the event loop.
    ///
    /// # Errors
    ///
    /// The muxer breaks a rule.
    pub fn apply(&mut self, step: &ScenarioStep) -> Result<(), SimFailure> {
        match step {
            ScenarioStep::Steps(turns) => {
                for _ in 0..*turns {
                    self.sim.step()?;
                }
            }
            ScenarioStep::Settles => {
                self.sim.settle()?;
                self.accept_waiting();
                self.check_flow()?;
            }
            ScenarioStep::Passes(time) => self.sim.pass(*time)?,
            ScenarioStep::Reboots => {
                self.sim.reboot()?;
                for link in &mut self.links {
                    link.socket = None;
                    link.harm(Harm::Spoilt);
                }
            }
            ScenarioStep::Stops => {
                self.sim.replace_device()?;
                self.harm_all(Harm::Spoilt);
            }
            ScenarioStep::TransportResets => {
                self.sim.transport_reset()?;
                self.harm_all(Harm::Spoilt);
            }
            ScenarioStep::GuestStarves => self.sim.guest.starve(),
            ScenarioStep::GuestFeeds => self.sim.guest.feed(),
            ScenarioStep::GuestConnects(socket_type) => {
                self.connect(*socket_type, Opener::Guest)?;
            }
            ScenarioStep::HostConnects(socket_type, form) => {
                self.connect(*socket_type, Opener::Host(*form))?;
            }
            ScenarioStep::GuestReconnects(at) => self.reconnect(*at)?,
            ScenarioStep::AcceptFails(kind) => self.backends[0].fail_accept(0, *kind),
            ScenarioStep::Raw(header, len) => self.send_raw(*header, *len),
            ScenarioStep::On(at, step) => self.on_link(*at, step)?,
        }
        self.accept_waiting();
        Ok(())
    }

    /// Reads everything, closes everything, waits for everything, and checks what is left.
    ///
    /// With [`Delivery::Complete`], every byte must have arrived.
    ///
    /// # Errors
    ///
    /// Returns what is left or was lost.
    pub fn wind_down(mut self, delivery: Delivery) -> Result<(), SimFailure> {
        self.sim.guest.feed();
        self.drain()?;
        if delivery == Delivery::Complete {
            for link in &self.links {
                link.check_delivered()?;
            }
        }
        let now = self.sim.now();
        for link in &mut self.links {
            if let Some(id) = link.socket.take() {
                self.sim.guest.close(now, id);
            }
            link.component = Component::Gone;
        }
        self.sim.settle()?;
        self.refuse_waiting();
        for _ in 0..4 {
            self.sim.pass(Duration::from_secs(40))?;
            self.refuse_waiting();
        }
        self.check_empty()
    }

    /// Closes connections that were never accepted.
    fn refuse_waiting(&mut self) {
        let now = self.sim.now();
        for port in FIRST_PORT..self.next_port {
            for backend in &self.backends {
                while backend.accept(port).is_some() {}
            }
            while let Some(id) = self.sim.guest.accept(port) {
                self.sim.guest.close(now, id);
            }
        }
        let left: Vec<_> = self.sim.guest.live().collect();
        for id in left {
            self.sim.guest.close(now, id);
        }
    }

    fn drain(&mut self) -> Result<(), SimFailure> {
        for _ in 0..200_000 {
            self.sim.settle()?;
            self.accept_waiting();
            let mut any = false;
            for link in &mut self.links {
                any |= link.guest_reads(&mut self.sim.guest, usize::MAX)?;
                any |= link.host_reads(usize::MAX)?;
            }
            if !any {
                // The last read may have made room for which the device waits, so let it request
                // credit again.
                let probe = self.sim.device().deadline();
                let soon = self.sim.now().saturating_add(Duration::from_secs(2));
                if probe.is_none_or(|at| at > soon) {
                    return Ok(());
                }
                self.sim.pass(Duration::from_millis(100))?;
            }
        }
        Err(SimFailure::new("bytes arrive without end"))
    }

    /// Checks that no connection is left on either side.
    fn check_empty(&mut self) -> Result<(), SimFailure> {
        let fds = self.backends.len();
        let left = [
            ("connections of the host", self.sim.host.connections(), 0),
            ("descriptors", self.sim.host.open_fds(), fds),
            ("watches", self.sim.event_loop().registered(), fds),
            ("common connections", self.sim.checker().connections(), 0),
            ("sockets", self.sim.guest.live().count(), 0),
        ];
        for (what, count, want) in left {
            if count != want {
                return Err(SimFailure::new(format!(
                    "{count} {what} are left, expected {want}"
                )));
            }
        }
        match self.sim.device().deadline() {
            None => Ok(()),
            Some(at) => Err(SimFailure::new(format!("a deadline is left at {at:?}"))),
        }
    }

    fn connect(&mut self, socket_type: SocketType, opener: Opener) -> Result<(), SimFailure> {
        if self.links.len() == MOST {
            return Ok(());
        }
        let port = self.next_port;
        self.next_port += 1;
        let failed = |error| SimFailure::new(format!("a component cannot connect: {error}"));
        let backend = &self.backends[port as usize % 2];
        let mut link = Link::new(port, opener);
        if socket_type == SocketType::SeqPacket {
            link = link.of_messages(self.longest);
        }
        match opener {
            Opener::Guest => {
                // Guest-initiated connections go to the backend that was added first.
                self.backends[0].listen(port, 4);
                let now = self.sim.now();
                let guest = &mut self.sim.guest;
                link.socket = Some(match socket_type {
                    SocketType::Stream => guest.connect(now, port),
                    SocketType::SeqPacket => guest.connect_seqpacket(now, port),
                });
            }
            Opener::Host(form) => {
                let _taken = self.sim.guest.listen(port, 4);
                let host = backend.connect_as(socket_type, form, port);
                link.component = Component::There(host.map_err(failed)?);
            }
        }
        self.links.push(link);
        Ok(())
    }

    /// Makes the guest reuse the ports of a connection immediately.
    fn reconnect(&mut self, at: usize) -> Result<(), SimFailure> {
        self.sim.settle()?;
        self.accept_waiting();
        let Some(at) = self.index(at) else {
            return Ok(());
        };
        let ports = self.links[at]
            .socket
            .and_then(|id| self.sim.guest.ports(id));
        let link = &self.links[at];
        let again = link.opener == Opener::Guest && link.messages.is_none();
        let Some((from, port)) = ports.filter(|_| again) else {
            return Ok(());
        };
        self.links[at].harm(Harm::Spoilt);
        if self.links.len() < MOST {
            let now = self.sim.now();
            let mut link = Link::new(port, Opener::Guest);
            // A forged packet may have opened a stream to this port, which still waits to be
            // accepted.
            link.harm(self.links[at].harm);
            link.socket = Some(self.sim.guest.connect_from(now, from, port));
            self.links.push(link);
        }
        Ok(())
    }

    fn harm_all(&mut self, harm: Harm) {
        self.links.iter_mut().for_each(|link| link.harm(harm));
    }

    fn index(&self, at: usize) -> Option<usize> {
        at.checked_rem(self.links.len())
    }

    /// Makes programs and components accept the connections that wait for them.
    fn accept_waiting(&mut self) {
        for link in &mut self.links {
            if link.opener != Opener::Guest {
                link.socket = link.socket.or_else(|| self.sim.guest.accept(link.port));
            } else if matches!(link.component, Component::Awaited) {
                if let Some(end) = self.backends[0].accept(link.port) {
                    link.component = Component::There(end);
                }
            }
        }
    }

    /// Checks, after everything has settled, that waiting bytes have a reason to wait.
    fn check_flow(&self) -> Result<(), SimFailure> {
        let guest = &self.sim.guest;
        if guest.posted() == 0 {
            return Ok(());
        }
        for link in self.links.iter().filter(|link| link.harm == Harm::None) {
            let (Some(id), Some(host)) = (link.socket, link.host()) else {
                continue;
            };
            if guest.state(id) != Some(SocketState::Connected) || host.device_gone() {
                continue;
            }
            let (bytes, packets) = guest.rx_room(id);
            let could_go = bytes > 0 && packets > 0 && guest.queued(id) == 0;
            let all_known =
                guest.unseen(id) == 0 && !link.guest_shut.contains(ShutdownFlags::RECEIVE);
            if host.unread_by_device() > 0 && could_go && all_known {
                return Err(SimFailure::new(format!(
                    "port {}: {} bytes for the guest wait without a reason",
                    link.port,
                    host.unread_by_device()
                )));
            }
            let may_send = !link.guest_shut.contains(ShutdownFlags::SEND) && guest.may_send(id);
            if guest.tx_room(id) == 0 && host.unread() == 0 && may_send {
                return Err(SimFailure::new(format!(
                    "port {}: the host has read everything, and the guest has no credit",
                    link.port
                )));
            }
        }
        Ok(())
    }
}
