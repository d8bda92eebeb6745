// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A virtio device and a host component, for a guest that follows no rules.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vm_memory::GuestMemory;
use vsock_backend_api::VsockBackend;
use vsock_driver::{Descriptor, DriverQueue, Memory, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::{Action, Muxer, Readiness, Token};
use vsock_proto::{Config, GuestCid, Tick};
use vsock_virtio::{Outcome, Queues, VsockDevice};

use crate::component::{Component, request};

pub(crate) const SIZES: [u16; 4] = [16, 1, 2, 64];
/// Two adjacent regions, and one after a gap.
pub(crate) const REGIONS: [(u64, usize); 3] =
    [(0, 0x1_0000), (0x1_0000, 0x2_0000), (0x8_0000, 0x1_0000)];
pub(crate) const RINGS: [u64; 3] = [0x1000, 0x2000, 0x3000];
/// Where descriptors usually point: among others across the boundary of two regions, and up to the
/// gap.
pub(crate) const PLACES: [u64; 4] = [0x4000, 0xffe0, 0x2_fff0, 0x8_0000];
/// How long a guest waits: not at all, longer than the device polls, longer than it delays an
/// interrupt, and longer than any timer of a connection.
pub(crate) const PAUSES: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_micros(300),
    Duration::from_millis(2),
    Duration::from_secs(10),
];
/// The bytes that a call may move, unless a target sets fewer.
pub(crate) const BUDGET: usize = 512 * 1024;
/// Longer than any call takes on any machine.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(20);

/// The device, a host component, and the state of the event loop.
pub(crate) struct Rig<M: GuestMemory> {
    pub(crate) device: VsockDevice<M>,
    /// Memory as the driver sees it.
    pub(crate) memory: Memory,
    /// The same memory as the device sees it.
    pub(crate) seen: M,
    pub(crate) now: Tick,
    component: Component,
    watched: HashMap<Token, (bool, bool)>,
}

impl<M: GuestMemory + From<Memory>> Rig<M> {
    /// Returns `None` if the process has no descriptors left. `others` are backends for their
    /// ports.
    pub(crate) fn new(
        direct: bool,
        budget: usize,
        others: Vec<(Box<dyn VsockBackend>, u32)>,
    ) -> Option<Self> {
        let backend = VsockInnerBackend::new().ok()?;
        let connector = backend.get_connector();
        let component = Component::new(&connector)?;
        let config = Config::builder().max_resets(8).build().ok()?;
        let mut muxer = Muxer::new(GuestCid::try_from(3).ok()?, config);
        muxer.add_backend(Box::new(backend)).ok()?;
        for (other, port) in others {
            muxer.add_backend_for(other, &[port]).ok()?;
        }
        let mut builder = VsockDevice::builder(muxer).budget(budget);
        if direct {
            builder = builder.direct::<VsockInnerStream>(0);
        }
        let memory = memory(&REGIONS);
        Some(Self {
            device: builder.build(),
            seen: memory.clone().into(),
            memory,
            now: Tick::ZERO,
            component,
            watched: HashMap::new(),
        })
    }

    /// Advances the time, and fires the timer if it is due.
    pub(crate) fn pass(&mut self, pause: Duration) {
        self.now = self.now.saturating_add(pause);
        if self.device.deadline().is_some_and(|due| due <= self.now) {
            self.device.on_timeout(self.now);
        }
    }

    /// Runs one turn of the event loop. Returns the notifications for the guest, unless the device
    /// has failed.
    pub(crate) fn turn(&mut self, queues: &mut Queues<'_>) -> Option<Outcome> {
        for (&token, &(readable, writable)) in &self.watched {
            let ready = Readiness {
                readable,
                writable,
                hangup: false,
            };
            self.device.on_event(self.now, token, ready);
        }
        let start = Instant::now();
        let outcome = self.device.process(self.now, &self.seen, queues);
        assert!(start.elapsed() < TOO_LONG, "the call took too long");
        self.carry_out();
        self.component.turn();
        assert_eq!(self.device.is_active(), outcome.is_ok());
        let due = self.device.deadline();
        assert!(
            due.is_none_or(|due| due > self.now),
            "the timer is due without pause"
        );
        outcome.ok()
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.device.next_action() {
            match action {
                Action::Watch {
                    token, interest, ..
                } => {
                    self.watched.insert(token, (interest.read, interest.write));
                }
                Action::Unwatch { token, .. } | Action::Close { token, .. } => {
                    self.watched.remove(&token);
                }
            }
        }
    }

    /// Checks that the device serves a well-behaved driver afterwards, in fresh memory.
    pub(crate) fn serves_again(&mut self) {
        self.memory = memory(&REGIONS);
        self.seen = self.memory.clone().into();
        self.carry_out();
        let mut rings = RINGS.map(|base| DriverQueue::new(base, SIZES[0]));
        let [mut rx, mut tx, mut event] = rings.each_ref().map(DriverQueue::queue);
        let mut queues = Queues {
            rx: &mut rx,
            tx: &mut tx,
            event: Some(&mut event),
        };
        let active = self.device.activate(self.now, &self.seen, &mut queues);
        active.expect("the device was reset, and the rings are in memory");
        let [rx, tx, _] = &mut rings;
        filled(&self.memory, PLACES[0], &request());
        tx.chain(&self.memory, 0, &[Descriptor::readable(PLACES[0], 44)]);
        tx.offer(&self.memory, 0);
        for (head, addr) in [(0, 0x1_0000), (1, 0x1_2000)] {
            rx.chain(&self.memory, head, &[Descriptor::writable(addr, 4096)]);
            rx.offer(&self.memory, head);
        }
        let (mut rx_notified, mut tx_notified) = (false, false);
        for _ in 0..4 {
            let outcome = self.turn(&mut queues).expect("the driver is well-behaved");
            rx_notified |= outcome.notify_rx;
            tx_notified |= outcome.notify_tx;
            self.pass(PAUSES[2]);
        }
        assert!(rx_notified && tx_notified, "the guest is notified");
        let [rx, tx, _] = &mut rings;
        assert_eq!(tx.used(&self.memory), [(0, 0)]);
        let got: Vec<_> = rx.used(&self.memory);
        assert_eq!(got, [(0, 44), (1, 4096)], "a response, then bytes");
    }
}
