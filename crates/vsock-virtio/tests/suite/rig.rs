// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest with three queues in plain memory, and the event loop of its device.

use std::collections::HashMap;
use std::time::Duration;

use virtio_queue::Queue;
use vm_memory::{Bytes, GuestAddress, GuestMemory};
use vsock_backend_api::VsockStream;
use vsock_driver::{Descriptor, DriverQueue, Memory, bytes, filled, memory};
use vsock_inner::{VsockInnerBackend, VsockInnerStream};
use vsock_muxer::{Action, Muxer, Readiness, Token};
use vsock_proto::{Config, GuestCid, Header, Op, Tick};
use vsock_virtio::{
    ActivateError, DeviceFault, DeviceState, F_EVENT_IDX, F_VERSION_1, NextCall, Outcome,
    QueueDepths, QueueName, Queues, RestoreError, VsockDevice,
};

pub(crate) const CID: u64 = 3;
pub(crate) const SIZE: u16 = 64;
/// The size of the guest's buffers in bytes.
pub(crate) const BUFFER: u32 = 4096;
/// The addresses of transmitted packets, one for each entry of the ring, and of receive buffers.
const TX_DATA: u64 = 0x10_0000;
pub(crate) const PACKET: u64 = 0x1_1000;
pub(crate) const RX_DATA: u64 = 0x80_0000;
pub(crate) const LEN: usize = 0x200_0000;

/// A guest that sees plain memory, which the device sees as `M`.
pub(crate) struct Rig<M: GuestMemory = Memory> {
    pub(crate) memory: Memory,
    pub(crate) device_memory: M,
    pub(crate) rx: DriverQueue,
    pub(crate) tx: DriverQueue,
    pub(crate) event: DriverQueue,
    pub(crate) queues: [Queue; 3],
    pub(crate) device: VsockDevice<M>,
    pub(crate) now: Tick,
    /// The address of transmitted packets.
    pub(crate) tx_data: u64,
    /// Descriptors for reading and for writing.
    pub(crate) watched: HashMap<Token, (bool, bool)>,
    sent: u16,
}

/// Creates the guest's muxer, with this backend and the default limits.
pub(crate) fn muxer(backend: VsockInnerBackend) -> Muxer {
    limited(backend, Config::default())
}

fn limited(backend: VsockInnerBackend, config: Config) -> Muxer {
    let mut muxer = Muxer::new(GuestCid::try_from(CID).unwrap(), config);
    muxer.add_backend(Box::new(backend)).unwrap();
    muxer
}

/// Creates an inactive device for the guest, with this backend, that does not poll.
pub(crate) fn device(backend: VsockInnerBackend, config: Config) -> VsockDevice<Memory> {
    VsockDevice::builder(limited(backend, config))
        .direct::<VsockInnerStream>(0)
        .poll_budget(Duration::ZERO)
        .build()
}

/// Creates a guest that has connected to port 80 of the host, with this backend and these features.
pub(crate) fn connected(
    device: impl FnOnce(VsockInnerBackend) -> VsockDevice<Memory>,
    features: u64,
) -> (Rig, VsockInnerStream) {
    let backend = VsockInnerBackend::new().unwrap();
    let listener = backend.listen(80).unwrap();
    let mut rig = Rig::started(device(backend), features);
    rig.post(48);
    rig.send(packet(Op::Request, 1024, 80), b"");
    rig.settle();
    let answer = rig.received()[0].0;
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut host = listener.accept().unwrap();
    host.set_nonblocking(true).unwrap();
    (rig, host)
}

impl Rig {
    /// Creates an active device whose backend has no host component, and a driver without
    /// `VIRTIO_F_EVENT_IDX`.
    pub(crate) fn new() -> Self {
        Self::with(VsockInnerBackend::new().unwrap(), 0)
    }

    pub(crate) fn with(backend: VsockInnerBackend, features: u64) -> Self {
        Self::started(device(backend, Config::default()), features)
    }

    /// Creates a driver for this device, and activates the device.
    pub(crate) fn started(device: VsockDevice<Memory>, features: u64) -> Self {
        let mut rig = Self::around(device);
        rig.device.ack_features(F_VERSION_1 | features).unwrap();
        rig.start();
        rig
    }

    pub(crate) fn event_idx() -> Self {
        Self::with(VsockInnerBackend::new().unwrap(), F_EVENT_IDX)
    }

    /// Creates a driver for this inactive device.
    pub(crate) fn around(device: VsockDevice<Memory>) -> Self {
        Self::sized(device, SIZE)
    }

    /// Creates a driver for this inactive device, with rings of `size` entries.
    pub(crate) fn sized(device: VsockDevice<Memory>, size: u16) -> Self {
        let memory = memory(&[(0, LEN)]);
        Self::over(device, size, memory.clone(), memory)
    }

    /// Resets the device, and loads a driver again.
    pub(crate) fn reload(&mut self) {
        self.device.reset(self.now);
        self.new_rings();
        self.activate();
    }

    /// Starts with new rings, like a driver that was loaded again with other memory.
    pub(crate) fn new_rings(&mut self) {
        self.memory = memory(&[(0, LEN)]);
        self.device_memory = self.memory.clone();
        self.empty_rings();
    }
}

impl<M: GuestMemory> Rig<M> {
    /// Creates a driver for this device, which sees the guest's `memory` as `device_memory`.
    pub(crate) fn over(
        device: VsockDevice<M>,
        size: u16,
        memory: Memory,
        device_memory: M,
    ) -> Self {
        let rings = [0x1000, 0x4000, 0x8000].map(|base| DriverQueue::new(base, size));
        let queues = rings.each_ref().map(DriverQueue::queue);
        let [rx, tx, event] = rings;
        Self {
            memory,
            device_memory,
            rx,
            tx,
            event,
            queues,
            device,
            now: Tick::ZERO,
            tx_data: TX_DATA,
            watched: HashMap::new(),
            sent: 0,
        }
    }

    pub(crate) fn activate(&mut self) {
        self.try_activate().unwrap();
    }

    pub(crate) fn try_activate(&mut self) -> Result<(), ActivateError> {
        let [rx, tx, event] = &mut self.queues;
        let event = Some(event);
        let mut queues = Queues { rx, tx, event };
        self.device
            .activate(self.now, &self.device_memory, &mut queues)
    }

    /// Restores the device from a saved state.
    pub(crate) fn restore(&mut self, state: &DeviceState) -> Result<(), RestoreError> {
        let [rx, tx, event] = &mut self.queues;
        let event = Some(event);
        let mut queues = Queues { rx, tx, event };
        self.device
            .restore(self.now, &self.device_memory, &mut queues, state)
    }

    /// Activates the device and calls it once, so that the initial notifications are over.
    pub(crate) fn start(&mut self) {
        self.activate();
        let missed = Outcome {
            notify_rx: true,
            notify_tx: true,
            ..Outcome::default()
        };
        assert_eq!(self.process(), missed);
    }

    /// Starts with empty rings in the same memory.
    pub(crate) fn empty_rings(&mut self) {
        let blank = [0; 0xb000];
        self.memory
            .write_slice(&blank, GuestAddress(0x1000))
            .unwrap();
        for ring in [&mut self.rx, &mut self.tx, &mut self.event] {
            *ring = ring.emptied();
        }
        self.queues = [&self.rx, &self.tx, &self.event].map(DriverQueue::queue);
        self.sent = 0;
    }

    pub(crate) const fn ring(&mut self, name: QueueName) -> &mut DriverQueue {
        match name {
            QueueName::Rx => &mut self.rx,
            QueueName::Tx => &mut self.tx,
            QueueName::Event => &mut self.event,
        }
    }

    pub(crate) fn try_process(&mut self) -> Result<Outcome, DeviceFault> {
        let [rx, tx, event] = &mut self.queues;
        let event = Some(event);
        let mut queues = Queues { rx, tx, event };
        self.device
            .process(self.now, &self.device_memory, &mut queues)
    }

    pub(crate) fn depths(&mut self) -> QueueDepths {
        let [rx, tx, event] = &mut self.queues;
        let event = Some(event);
        let mut queues = Queues { rx, tx, event };
        self.device.queue_depths(&self.device_memory, &mut queues)
    }

    pub(crate) fn process(&mut self) -> Outcome {
        self.try_process().unwrap()
    }

    /// Lets the time pass for which packets wait for an event.
    pub(crate) fn wait_out_the_event(&mut self) {
        self.now = self.now.saturating_add(Duration::from_millis(100));
        self.device.on_timeout(self.now);
    }

    /// Runs the event loop until nothing changes.
    pub(crate) fn settle(&mut self) {
        for _ in 0..64 {
            self.ready();
            let next = self.process().next;
            if !self.apply_actions() && next == NextCall::OnEvent {
                return;
            }
        }
    }

    /// Reports all watched descriptors as ready.
    pub(crate) fn ready(&mut self) {
        for (&token, &(readable, writable)) in &self.watched {
            let ready = Readiness {
                readable,
                writable,
                hangup: false,
            };
            self.device.on_event(self.now, token, ready);
        }
    }

    /// Carries out the actions; returns whether there were any.
    pub(crate) fn apply_actions(&mut self) -> bool {
        let mut any = false;
        while let Some(action) = self.device.next_action() {
            any = true;
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
        any
    }

    /// Offers `count` buffers for packets.
    pub(crate) fn post(&mut self, count: u16) {
        for _ in 0..count {
            let head = self.rx.available() % self.rx.size();
            let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
            self.rx
                .describe(&self.memory, head, Descriptor::writable(addr, BUFFER));
            self.rx.offer(&self.memory, head);
        }
    }

    /// Offers `count` buffers for events of `len` bytes.
    pub(crate) fn post_events(&mut self, count: u16, len: u32) {
        for _ in 0..count {
            let head = self.event.available() % self.event.size();
            let addr = 0xc000 + 8 * u64::from(head);
            self.event
                .describe(&self.memory, head, Descriptor::writable(addr, len));
            self.event.offer(&self.memory, head);
        }
    }

    /// Returns the head of the next packet's chain, and the packet's address.
    pub(crate) fn place(&mut self) -> (u16, u64) {
        let head = self.sent % self.tx.size();
        self.sent = self.sent.wrapping_add(1);
        (head, self.tx_data + u64::from(head) * PACKET)
    }

    /// Sends a packet in one piece.
    pub(crate) fn send(&mut self, header: Header, payload: &[u8]) -> u16 {
        let (head, addr) = self.place();
        let len = u32::try_from(payload.len()).unwrap();
        let header = Header { len, ..header };
        let packet = [&header.encode()[..], payload].concat();
        filled(&self.memory, addr, &packet);
        let piece = Descriptor::readable(addr, len + 44);
        self.tx.describe(&self.memory, head, piece);
        self.tx.offer(&self.memory, head);
        head
    }

    /// Returns the received packets in order, and offers their buffers again.
    pub(crate) fn received(&mut self) -> Vec<(Header, Vec<u8>)> {
        let used = self.rx.used(&self.memory);
        let packets: Vec<_> = used
            .iter()
            .map(|&(head, len)| {
                let addr = RX_DATA + u64::from(head) * u64::from(BUFFER);
                let whole = bytes(&self.memory, addr, len as usize);
                let (header, payload) = whole.split_at(44);
                (Header::decode(header.try_into().unwrap()), payload.to_vec())
            })
            .collect();
        self.post(u16::try_from(used.len()).unwrap());
        packets
    }
}

/// Creates a packet of the guest for the connection between these ports.
pub(crate) fn packet(op: Op, guest: u32, host: u32) -> Header {
    Header {
        src_cid: CID,
        dst_cid: 2,
        src_port: guest,
        dst_port: host,
        socket_type: 1,
        op: op.into(),
        buf_alloc: 262_144,
        ..Header::default()
    }
}

/// Returns whether a call has used up its budget.
pub(crate) fn has_more(outcome: Outcome) -> bool {
    outcome.next == NextCall::Immediately
}
