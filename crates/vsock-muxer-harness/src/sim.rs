// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer between a simulated guest and simulated host components, in virtual time.
//!
//! [`Sim`] has all three, the event loop of a driver, and a [`Checker`] that sees every packet. One
//! [`step`](Sim::step) is one turn of a driver: packets of the guest, readiness, buffers of the
//! guest, each with a budget. [`settle`](Sim::settle) turns until nothing is left to do, and then
//! knows what must be true: [`quiescence`](Sim::check_quiescence), which finds every wake-up that
//! was missed. Nothing depends on a clock, a thread or an address, so a run can be repeated.
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

/// How a simulated driver drives.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The muxer's limits.
    pub muxer: Config,
    /// How the event loop reports.
    pub trigger: SimTrigger,
    /// How the packets of a turn are handed over.
    pub arrival: Arrival,
    /// Packets of the guest that a turn takes at most.
    pub tx_packets: usize,
    /// Bytes that a turn puts into the guest's buffers at most.
    pub rx_bytes: usize,
    /// Events of one wake-up at most.
    pub events: usize,
    /// Turns after which a simulation that still has something to do is given up.
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

/// How a device is given the packets of the guest that one turn takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// Each by itself: [`Muxer::on_packet`].
    Alone,
    /// All of them as one batch: [`Muxer::on_packet_of_batch`].
    Together,
}

/// A packet that has passed between device and guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TracedPacket {
    /// The device has taken it.
    FromGuest(Header),
    /// The device has put it into a buffer.
    ToGuest(Header),
}

/// How often a device may ask to be called again immediately, to do what is due in turns.
const TURNS: usize = 1000;

/// Wake-ups in a row that may lead to nothing: each watch may report once without effect before it
/// is taken back.
const IDLE_WAKEUPS: usize = 3;

/// The simulation. See the [module](self).
#[derive(Debug)]
pub struct Sim<D = Muxer> {
    /// The guest, to be used as its applications would.
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
    /// A muxer that is active, and a guest that has booted.
    ///
    /// # Errors
    ///
    /// What goes wrong while the muxer is activated.
    pub fn new(config: SimConfig, guest: GuestConfig) -> Result<Self, SimFailure> {
        let muxer = Muxer::new(guest.cid, config.muxer.clone());
        Self::with_device(muxer, config, guest)
    }

    /// Gives the muxer a backend of the simulated host.
    ///
    /// # Errors
    ///
    /// Those of [`Muxer::add_backend`].
    pub fn add_backend(
        &mut self,
        kind: StreamKind,
        capacity: usize,
    ) -> Result<HostBackend, SimFailure> {
        let (ours, theirs) = self.host.backend(kind, capacity);
        self.add(theirs)
            .map_err(|error| SimFailure::new(format!("the backend was refused: {error}")))?;
        self.apply()?;
        Ok(ours)
    }

    fn add(&mut self, backend: Box<dyn VsockBackend>) -> Result<(), MuxerError> {
        self.device.add_backend(backend).map(drop)
    }
}

impl<D: DeviceUnderTest> Sim<D> {
    /// As [`new`](Sim::new), with any device. Backends for it come from [`host`](Self::host).
    ///
    /// # Errors
    ///
    /// What goes wrong while the device is activated.
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

    /// One turn of the driver; returns whether anything happened.
    ///
    /// # Errors
    ///
    /// What the device did wrong.
    pub fn step(&mut self) -> Result<bool, SimFailure> {
        let mut busy = self.take_packets()?;
        busy |= self.dispatch()?;
        busy |= self.transmit()?;
        busy |= self.guest.receive() > 0;
        // What the last read did may be an event of the next turn.
        Ok(busy || self.event_loop.is_due())
    }

    /// Turns until nothing is left to do, and checks that nothing was forgotten.
    ///
    /// # Errors
    ///
    /// What the device did wrong; also that it never comes to rest.
    pub fn settle(&mut self) -> Result<(), SimFailure> {
        for _ in 0..self.config.turns {
            if !self.step()? {
                return self.check_quiescence();
            }
        }
        Err(SimFailure::new("it never comes to rest"))
    }

    /// Lets time pass, with all that is due on the way, and settles.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub fn pass(&mut self, time: Duration) -> Result<(), SimFailure> {
        let end = self.now.saturating_add(time);
        self.settle()?;
        while let Some(next) = self.next_deadline().filter(|next| *next <= end) {
            self.reach(next)?;
        }
        self.now = end;
        self.device.on_timeout(end); // too early for anything, which must do nothing
        self.apply()?;
        self.settle()
    }

    /// Turns, and lets time pass, until `done`.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle); also that `done` is not so after `bound`, or ever.
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
                    "it does not happen within {bound:?}"
                )));
            };
            self.reach(next)?;
        }
    }

    /// The guest reboots: the device is reset, and activated when the driver is ready again.
    ///
    /// # Errors
    ///
    /// What the device did wrong.
    pub fn reboot(&mut self) -> Result<(), SimFailure> {
        self.restart(Guest::reboot)
    }

    /// The device is reset, which the guest learns in this way, and activated again.
    fn restart(&mut self, tell: fn(&mut Guest)) -> Result<(), SimFailure> {
        self.device.reset(self.now);
        self.apply()?;
        self.checker.clear();
        tell(&mut self.guest);
        let types = self.guest.config().types;
        self.device.activate(self.now, types);
        self.apply().map(drop)
    }

    /// A transport reset: the device has forgotten all connections, and the guest is told.
    ///
    /// # Errors
    ///
    /// What the device did wrong.
    pub fn transport_reset(&mut self) -> Result<(), SimFailure> {
        self.device.transport_reset(self.now);
        self.apply()?;
        self.checker.clear();
        self.guest.on_transport_reset();
        Ok(())
    }

    /// The device says farewell and stops, and another one takes its place under the same guest.
    ///
    /// A guest with buffers must know by then of the end of every connection; one without any is
    /// told by a transport reset.
    ///
    /// # Errors
    ///
    /// What the device did wrong.
    pub fn replace_device(&mut self) -> Result<(), SimFailure> {
        self.device.begin_shutdown(self.now);
        self.apply()?;
        self.settle()?;
        let starved = self.guest.posted() == 0;
        let left = self.checker.connections();
        require(starved || left == 0, || {
            format!("the guest was not told of the end of {left} connections")
        })?;
        self.restart(if starved {
            Guest::on_transport_reset
        } else {
            |_| {}
        })
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Tick {
        self.now
    }

    /// The device.
    pub const fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// The event loop.
    #[must_use]
    pub const fn event_loop(&self) -> &EventLoop {
        &self.event_loop
    }

    /// What has been seen between device and guest.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// From now on, every packet is kept.
    pub fn record(&mut self) {
        self.trace = Some(Vec::new());
    }

    /// The packets that were kept.
    #[must_use]
    pub fn trace(&self) -> &[TracedPacket] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// What must be so whenever nothing is left to do: see [`settle`](Self::settle), which checks
    /// it.
    ///
    /// # Errors
    ///
    /// What was forgotten.
    pub fn check_quiescence(&self) -> Result<(), SimFailure> {
        let starved = self.guest.posted() == 0;
        require(starved || self.checker.owed_resets() == 0, || {
            format!("{} RSTs were never sent", self.checker.owed_resets())
        })?;
        require(starved || !self.device.wants_transmit(), || {
            "there are buffers, and something to send is not sent".to_owned()
        })?;
        require(self.guest.tx_len() == 0 || starved, || {
            "there are buffers, and packets of the guest are not taken".to_owned()
        })
    }

    fn next_deadline(&self) -> Option<Tick> {
        let (device, guest) = (self.device.deadline(), self.guest.deadline());
        device.into_iter().chain(guest).min()
    }

    /// Moves on to a deadline and does what is due.
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
            "a deadline is still due after it was served".to_owned()
        })?;
        self.guest.on_timeout(self.now);
        self.settle()
    }
}
