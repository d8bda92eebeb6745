// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer between a simulated guest and simulated host components, in virtual time.
//!
//! [`Sim`] contains all three, an event loop, and a [`Checker`] that sees every packet. One
//! [`step`](Sim::step) is one turn of the event loop: packets of the guest, readiness events and
//! buffers of the guest, each with a budget. [`settle`](Sim::settle) takes turns until nothing is
//! left to do, and then checks for [quiescence](Sim::check_quiescence), which reveals every missed
//! wake-up. Nothing depends on a clock, a thread or an address, so every run can be repeated.
//!
//! ```
//! use vsock_muxer_harness::guest::{GuestConfig, GuestRead};
//! use vsock_muxer_harness::host::{HostRead, StreamKind};
//! use vsock_muxer_harness::sim::{Sim, SimConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut sim = Sim::new(SimConfig::default(), GuestConfig::default())?;
//! let backend = sim.add_backend(StreamKind::Socket, 64 * 1024)?;
//! backend.listen(80, 8);
//!
//! let socket = sim.guest.connect(sim.now(), 80);
//! sim.settle()?;
//! let host = backend.accept(80).expect("the guest has connected");
//! sim.guest.write(socket, b"ping")?;
//! sim.settle()?;
//! assert_eq!(host.read(64), HostRead::Bytes(b"ping".to_vec()));
//! host.write(b"pong")?;
//! sim.settle()?;
//! assert_eq!(sim.guest.read(socket, 64)?, GuestRead::Bytes(b"pong".to_vec()));
//! # Ok(())
//! # }
//! ```

mod checker;
mod device;
mod event_loop;
mod failure;
mod turn;

use std::time::Duration;

use vsock_backend_api::VsockBackend;
use vsock_muxer::{Muxer, MuxerError};
use vsock_proto::{Config, Header, Tick};

pub use checker::Checker;
pub use device::DeviceUnderTest;
pub use event_loop::{EventLoop, SimTrigger};
pub use failure::SimFailure;
use failure::require;

use crate::guest::{Guest, GuestConfig};
use crate::host::{HostBackend, SimHost, StreamKind};

/// The configuration of a simulation.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The muxer's configuration. Default: that of [`Config`].
    pub muxer: Config,
    /// How the event loop reports readiness. Default: edge-triggered.
    pub trigger: SimTrigger,
    /// How the packets of one turn are passed to the device. Default: together.
    pub arrival: Arrival,
    /// The maximum number of packets of the guest per turn. Default: 256.
    pub tx_packets: usize,
    /// The maximum number of bytes put into the guest's buffers per turn. Default: 512 KiB.
    pub rx_bytes: usize,
    /// The maximum number of events per wake-up. Default: 64.
    pub events: usize,
    /// The number of turns after which a simulation that is not finished fails. Default: 100,000.
    pub turns: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            muxer: Config::default(),
            trigger: SimTrigger::Edge,
            arrival: Arrival::Together,
            tx_packets: 256,
            rx_bytes: 512 * 1024,
            events: 64,
            turns: 100_000,
        }
    }
}

/// How the guest's packets of one turn are passed to the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// One by one: [`Muxer::on_packet`].
    Alone,
    /// As one batch: [`Muxer::on_packet_of_batch`].
    Together,
}

/// A packet that has passed between device and guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TracedPacket {
    /// A packet that the device has taken from the guest.
    FromGuest(Header),
    /// A packet that the device has put into a buffer of the guest.
    ToGuest(Header),
}

/// How many times a device may postpone due work to the next call.
const TURNS: usize = 1000;

/// How many wake-ups in a row may have no effect: each watch may report once without effect before
/// it is withdrawn.
const IDLE_WAKEUPS: usize = 3;

/// The simulation. See the [module](self).
#[derive(Debug)]
pub struct Sim<D = Muxer> {
    /// The guest, to be used as its programs would use it.
    pub guest: Guest,
    /// The host.
    pub host: SimHost,
    device: D,
    event_loop: EventLoop,
    checker: Checker,
    config: SimConfig,
    now: Tick,
    idle_wakeups: usize,
    packets: u64,
    trace: Option<Vec<TracedPacket>>,
}

impl Sim<Muxer> {
    /// Creates a simulation with an active muxer and a guest that has booted.
    ///
    /// # Errors
    ///
    /// The muxer breaks a rule while it is activated.
    pub fn new(config: SimConfig, guest: GuestConfig) -> Result<Self, SimFailure> {
        let muxer = Muxer::new(guest.cid, config.muxer.clone());
        Self::with_device(muxer, config, guest)
    }

    /// Adds a backend of the simulated host to the muxer.
    ///
    /// # Errors
    ///
    /// As for [`Muxer::add_backend`].
    pub fn add_backend(
        &mut self,
        kind: StreamKind,
        capacity: usize,
    ) -> Result<HostBackend, SimFailure> {
        let (ours, theirs) = self.host.backend(kind, capacity);
        self.add(theirs)
            .map_err(|error| SimFailure::new(format!("cannot add a backend: {error}")))?;
        self.apply()?;
        Ok(ours)
    }

    fn add(&mut self, backend: Box<dyn VsockBackend>) -> Result<(), MuxerError> {
        self.device.add_backend(backend).map(drop)
    }
}

impl<D: DeviceUnderTest> Sim<D> {
    /// Creates a simulation like [`new`](Sim::new), with any device. Take backends for it from
    /// [`host`](Self::host).
    ///
    /// # Errors
    ///
    /// The device breaks a rule while it is activated.
    pub fn with_device(
        device: D,
        config: SimConfig,
        guest: GuestConfig,
    ) -> Result<Self, SimFailure> {
        let host = SimHost::new();
        let types = guest.types;
        let mut sim = Self {
            event_loop: EventLoop::new(&host, config.trigger),
            checker: Checker::new(guest.cid, types),
            guest: Guest::new(guest),
            host,
            device,
            config,
            now: Tick::ZERO,
            idle_wakeups: 0,
            packets: 0,
            trace: None,
        };
        sim.device.activate(sim.now, types);
        sim.apply()?;
        Ok(sim)
    }

    /// Takes one turn of the event loop. Returns whether anything happened.
    ///
    /// # Errors
    ///
    /// The device breaks a rule.
    pub fn step(&mut self) -> Result<bool, SimFailure> {
        let mut busy = self.take_packets()?;
        busy |= self.dispatch()?;
        busy |= self.transmit()?;
        busy |= self.guest.receive() > 0;
        // The last read may have caused an event for the next turn.
        Ok(busy || self.event_loop.is_due())
    }

    /// Takes turns until nothing is left to do, and checks that nothing was forgotten.
    ///
    /// # Errors
    ///
    /// The device breaks a rule, or never comes to rest.
    pub fn settle(&mut self) -> Result<(), SimFailure> {
        for _ in 0..self.config.turns {
            if !self.step()? {
                return self.check_quiescence();
            }
        }
        Err(SimFailure::new("the device never comes to rest"))
    }

    /// Lets time pass, including all deadlines on the way, and settles.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle).
    pub fn pass(&mut self, time: Duration) -> Result<(), SimFailure> {
        let end = self.now.saturating_add(time);
        self.settle()?;
        while let Some(next) = self.next_deadline().filter(|next| *next <= end) {
            self.reach(next)?;
        }
        self.now = end;
        self.device.on_timeout(end); // Nothing is due, so this must have no effect.
        self.apply()?;
        self.settle()
    }

    /// Takes turns and lets time pass until `done`.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle), and `done` does not become true within `bound`.
    pub fn drive_until(
        &mut self,
        bound: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), SimFailure> {
        let end = self.now.saturating_add(bound);
        loop {
            self.settle()?;
            if done(self) {
                return Ok(());
            }
            let next = self.next_deadline().filter(|next| *next <= end);
            let Some(next) = next else {
                return Err(SimFailure::new(format!(
                    "the expected state is not reached within {bound:?}"
                )));
            };
            self.reach(next)?;
        }
    }

    /// Reboots the guest: the device is reset, and activated again when the driver is ready.
    ///
    /// # Errors
    ///
    /// The device breaks a rule.
    pub fn reboot(&mut self) -> Result<(), SimFailure> {
        self.restart(Guest::reboot)
    }

    /// Resets the device, which the guest learns through `tell`, and activates it again.
    fn restart(&mut self, tell: fn(&mut Guest)) -> Result<(), SimFailure> {
        self.device.reset(self.now);
        self.apply()?;
        self.checker.clear();
        tell(&mut self.guest);
        let types = self.guest.config().types;
        self.device.activate(self.now, types);
        self.apply().map(drop)
    }

    /// Resets the transport: the device forgets all connections, and the guest is told.
    ///
    /// # Errors
    ///
    /// The device breaks a rule.
    pub fn transport_reset(&mut self) -> Result<(), SimFailure> {
        self.device.transport_reset(self.now);
        self.apply()?;
        self.checker.clear();
        self.guest.on_transport_reset();
        Ok(())
    }

    /// Shuts the device down and replaces it with another one for the same guest.
    ///
    /// If the guest has buffers, it must have learned by then that every connection has ended.
    /// Otherwise, a transport reset tells it.
    ///
    /// # Errors
    ///
    /// The device breaks a rule.
    pub fn replace_device(&mut self) -> Result<(), SimFailure> {
        self.device.begin_shutdown(self.now);
        self.apply()?;
        self.settle()?;
        let starved = self.guest.posted() == 0;
        let left = self.checker.connections();
        require(starved || left == 0, || {
            format!("the guest did not learn that {left} connections ended")
        })?;
        self.restart(if starved {
            Guest::on_transport_reset
        } else {
            |_| {}
        })
    }

    /// Returns the current virtual time.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// Returns the device.
    pub const fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Returns the event loop.
    #[must_use]
    pub const fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }

    /// Returns the checker, which has seen every packet.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Starts to record every packet.
    pub fn record(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// Returns the recorded packets.
    #[must_use]
    pub fn trace(&self) -> &[TracedPacket] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Checks what must be true when nothing is left to do. [`settle`](Self::settle) calls this.
    ///
    /// # Errors
    ///
    /// Returns what was forgotten.
    pub fn check_quiescence(&self) -> Result<(), SimFailure> {
        let starved = self.guest.posted() == 0;
        require(starved || self.checker.owed_resets() == 0, || {
            format!("{} pending RSTs were not sent", self.checker.owed_resets())
        })?;
        require(starved || !self.device.wants_transmit(), || {
            "the guest has buffers, but pending packets are not sent".to_owned()
        })?;
        require(self.guest.tx_len() == 0 || starved, || {
            "the guest has packets and buffers, but the device takes no packets".to_owned()
        })
    }

    fn next_deadline(&self) -> Option<Tick> {
        let (device, guest) = (self.device.deadline(), self.guest.deadline());
        device.into_iter().chain(guest).min()
    }

    /// Advances to a deadline and does the work that is due.
    fn reach(&mut self, at: Tick) -> Result<(), SimFailure> {
        self.now = self.now.max(at);
        let due = |sim: &Self| sim.device.deadline().is_some_and(|next| next <= sim.now);
        for _ in 0..TURNS {
            if !due(self) {
                break;
            }
            self.device.on_timeout(self.now);
            self.apply()?;
        }
        require(!due(self), || {
            "a deadline is still due after its work was done".to_owned()
        })?;
        self.guest.on_timeout(self.now);
        self.settle()
    }
}
