// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A muxer and a simulated guest on real descriptors, in real time. The thread that turns it is the
//! device's.

use std::io;
use std::time::Duration;

use vsock_backend_api::VsockBackend;
use vsock_epoll::{DriverEvents, Handover, LoopError, MuxerDriver};
use vsock_muxer::{Muxer, MuxerCounters};
use vsock_muxer_harness::guest::{Guest, GuestConfig};
use vsock_proto::{Config, Tick};

/// Packets of the guest, and bytes to it, that a turn carries at most.
const TX_PACKETS: usize = 256;
const RX_BYTES: usize = 512 * 1024;

/// A muxer, its event loop, and its guest.
pub(super) struct Rig {
    /// The guest, to be used as its applications would.
    pub(super) guest: Guest,
    muxer: Muxer,
    driver: MuxerDriver,
    events: DriverEvents,
}

impl Rig {
    /// A muxer that is active, and a guest that has booted.
    pub(super) fn new(config: Config, guest: GuestConfig) -> io::Result<Self> {
        let mut muxer = Muxer::new(guest.cid, config);
        muxer.activate(Tick::ZERO, guest.types);
        let driver = MuxerDriver::new()?;
        Ok(Self {
            guest: Guest::new(guest),
            muxer,
            events: driver.events(),
            driver,
        })
    }

    pub(super) fn add_backend(&mut self, backend: Box<dyn VsockBackend>) -> io::Result<()> {
        self.muxer.add_backend(backend).map_err(io::Error::other)?;
        self.carry_out()
    }

    /// The time since the beginning.
    pub(super) fn now(&self) -> Tick {
        self.driver.now()
    }

    pub(super) fn counters(&self) -> MuxerCounters {
        self.muxer.counters()
    }

    /// One turn of the device: packets, readiness, buffers, deadlines. While there is nothing to do
    /// it waits, at most for so long.
    pub(super) fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let mut busy = self.take_packets()?;
        busy |= self.transmit()?;
        busy |= self.guest.receive() > 0;
        // The muxer's own deadline is the driver's affair, the guest's is not.
        let due = self.guest.deadline().map(|at| at.since(self.now()));
        let wait = if busy || self.guest.tx_len() > 0 {
            Duration::ZERO
        } else {
            due.map_or(wait, |due| due.min(wait))
        };
        self.events.wait(Some(wait))?;
        let now = self.now();
        let _work = self.driver.dispatch(now, &self.events, &mut self.muxer);
        if self.guest.deadline().is_some_and(|at| at <= now) {
            self.guest.on_timeout(now);
        }
        self.carry_out()
    }

    fn take_packets(&mut self) -> io::Result<bool> {
        let now = self.now();
        let mut taken = 0;
        while taken < TX_PACKETS && self.muxer.can_take_packet() {
            let Some(packet) = self.guest.next_packet() else {
                break;
            };
            let mut payload = &packet.payload[..];
            self.muxer.on_packet(now, &packet.header, &mut payload);
            taken += 1;
        }
        self.carry_out()?;
        Ok(taken > 0)
    }

    fn transmit(&mut self) -> io::Result<bool> {
        let now = self.now();
        let queue = self.guest.rx_queue();
        let before = queue.used();
        if self.muxer.wants_transmit() {
            self.muxer.transmit(now, queue, RX_BYTES);
        }
        let any = self.guest.rx_queue().used() > before;
        self.carry_out()?;
        Ok(any)
    }

    /// Does what the muxer wants done; fails with the first thing that fails.
    fn carry_out(&mut self) -> io::Result<()> {
        let mut failed: Option<LoopError> = None;
        let now = self.now();
        self.driver
            .carry_out(now, &mut self.muxer, |handover| match handover {
                Handover::Close(stream) => drop(stream),
                Handover::Failed(error) => {
                    failed.get_or_insert(error);
                }
            });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
