// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests of different VMMs that are paused, reset and moved, and the effect on both ends of their
//! connections.

mod event_queue;
mod pauses;
mod resets;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq;
use vm_memory::Bytes;
use vsock_compliance::poll::Deadline;
use vsock_proto::{Op, SocketTypes};
use vsock_vhost_user::{
    UnixSeqpacketBackend, VhostUserVsockBuilder, VsockInnerStream, VsockStream,
};

use crate::guest::{GENEROUS, Guest, Socket, WINDOW};
use crate::host::Host;
use crate::migration::set_event_queue;
use crate::monitors::{
    CLOUD_HYPERVISOR, CROSVM, EARLY_CLOUD_HYPERVISOR, LIBKRUN, Monitor, QEMU, QEMU_7,
};
use crate::vmm::{EVENT, FEATURES, RX, TX, Vmm, memory};

/// The size of an event buffer in bytes, and the number of a driver's event buffers.
const EVENT_BUFFER: u32 = 8;
const EVENT_BUFFERS: usize = 8;

/// How long packets wait for an event queue that starts later than the others.
const EVENT_QUEUE_WAIT: Duration = Duration::from_millis(100);

/// Long enough for packets that are under way, and short for a test.
const MOMENT: Duration = Duration::from_millis(20);

/// The features that a driver accepts by itself.
const DRIVER: u64 = FEATURES & !(1 << 30);

/// A guest of a VMM, whose driver fills its queues before it is ready.
struct Machine {
    guest: Guest,
    monitor: &'static Monitor,
    /// How many bytes the guest has sent on a streaming connection, and how many the host has
    /// acknowledged.
    sent: u32,
    freed: u32,
}

impl Machine {
    fn boot(host: &Host, monitor: &'static Monitor) -> Self {
        Self::boot_with(host, monitor, DRIVER)
    }

    fn boot_with(host: &Host, monitor: &'static Monitor, features: u64) -> Self {
        let mut vmm = Vmm::open(&host.socket(), memory(SealFlags::empty()));
        (monitor.connect)(&mut vmm);
        let guest = Guest::of(vmm, host.cid);
        let (sent, freed) = (0, 0);
        let mut machine = Self {
            guest,
            monitor,
            sent,
            freed,
        };
        machine.load_driver(features);
        machine
    }

    fn vmm(&mut self) -> &mut Vmm {
        &mut self.guest.vmm
    }

    /// Starts a driver with empty rings.
    fn load_driver(&mut self, features: u64) {
        let monitor = self.monitor;
        self.vmm().rings.iter_mut().for_each(|ring| ring.clear());
        self.guest.offer_buffers();
        for _ in 0..EVENT_BUFFERS {
            self.vmm().rings[EVENT].offer(EVENT_BUFFER, true);
        }
        (monitor.start)(self.vmm(), features);
        for &index in monitor.queues {
            self.vmm().rings[index].kick.write(1).unwrap();
        }
    }

    fn reset_driver(&mut self) {
        (self.monitor.reset)(&mut self.guest.vmm);
    }

    /// Waits for the next event, and offers its buffer again.
    fn event_within(&mut self, wait: Duration) -> Option<u32> {
        let ring = &mut self.vmm().rings[EVENT];
        let (entry, len) = ring.wait(Deadline::after(wait))?;
        assert_eq!(len, 4);
        let address = ring.buffer(entry);
        let old = ring.available();
        ring.offer(EVENT_BUFFER, true);
        ring.notify(old);
        let event: u32 = self.vmm().memory().read_obj(address).unwrap();
        Some(u32::from_le(event))
    }

    /// Returns whether the host has room for this many more bytes, as far as the guest knows.
    fn may_send(&self, len: usize) -> bool {
        let waiting = self.sent.wrapping_sub(self.freed) as usize;
        waiting + len <= WINDOW as usize / 2
    }

    fn count_sent(&mut self, len: usize) {
        self.sent = self.sent.wrapping_add(u32::try_from(len).unwrap());
    }

    /// Takes all packets that have arrived.
    fn drain(&mut self) {
        while self.guest.packet_within(MOMENT).is_some() {}
    }

    fn expect_transport_reset(&mut self) {
        assert_eq!(
            self.event_within(GENEROUS),
            Some(0),
            "{}",
            self.monitor.name
        );
    }
}

/// Opens a connection of the guest to the host.
fn connected(host: &Host, guest: &mut Guest, port: u32) -> (Socket, VsockInnerStream) {
    let listener = host.connector.listen(port).unwrap();
    let (mut socket, answer) = guest.connect(port, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut stream = listener.accept().unwrap();
    stream.set_read_timeout(Some(GENEROUS)).unwrap();
    exchange(guest, &mut socket, &mut stream);
    (socket, stream)
}

fn exchange(guest: &mut Guest, socket: &mut Socket, stream: &mut VsockInnerStream) {
    stream.write_all(b"to the guest").unwrap();
    assert_eq!(guest.read(socket, 12), b"to the guest");
    guest.write(socket, b"to the host");
    let mut bytes = [0; 11];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"to the host");
}

#[track_caller]
fn assert_reset(stream: &mut VsockInnerStream) {
    let end = stream.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
}

fn starts(monitor: &'static Monitor) {
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    host.assert_serves(&mut machine.guest, 1);
    let (mut socket, mut stream) = connected(&host, &mut machine.guest, 2);
    exchange(&mut machine.guest, &mut socket, &mut stream);
    assert_eq!(host.device.queue_counters().transport_resets, 0);
}

#[test]
fn t113_qemu_starts() {
    starts(&QEMU);
}

#[test]
fn t113_cloud_hypervisor_starts_at_the_available_index() {
    starts(&CLOUD_HYPERVISOR);
}

#[test]
fn t113_crosvm_starts() {
    starts(&CROSVM);
}

#[test]
fn t113_libkrun_starts() {
    starts(&LIBKRUN);
}

#[test]
fn t122_a_front_end_may_kick_before_it_enables() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &LIBKRUN);
    machine.reset_driver();
    machine.load_driver(DRIVER);
    for index in [RX, TX] {
        machine
            .vmm()
            .frontend
            .set_vring_enable(index, false)
            .unwrap();
    }
    machine.guest.request(1, 1);
    machine.vmm().rings[TX].kick.write(1).unwrap();
    for index in [TX, RX] {
        machine
            .vmm()
            .frontend
            .set_vring_enable(index, true)
            .unwrap();
    }
    machine.guest.expect(Op::Reset);
}

/// The rings are enabled from the start, and are set up again while they run.
#[test]
fn t122_a_front_end_without_protocol_features_resets_its_driver() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &QEMU_7);
    let start = |machine: &mut Machine| {
        machine.vmm().frontend.set_features(DRIVER).unwrap();
        machine.vmm().share_memory().unwrap();
        for index in [RX, TX] {
            let (ring, frontend) = {
                let vmm = machine.vmm();
                (&vmm.rings[index], &vmm.frontend)
            };
            frontend.set_vring_num(index, crate::ring::SIZE).unwrap();
            frontend.set_vring_base(index, 0).unwrap();
            frontend.set_vring_addr(index, &ring.config()).unwrap();
            frontend.set_vring_kick(index, &ring.kick).unwrap();
            frontend.set_vring_call(index, &ring.call).unwrap();
        }
    };
    start(&mut machine);
    for place in [3, 0, 3] {
        let (_old, mut stream) = connected(&host, &mut machine.guest, 1);
        for (index, ring) in (place..).zip(&mut machine.vmm().rings) {
            ring.move_to(index);
        }
        machine.guest.offer_buffers();
        start(&mut machine);
        assert_reset(&mut stream);
        host.assert_serves(&mut machine.guest, 2);
    }
}

#[test]
fn t123_the_same_addresses_and_features_again_change_nothing_while_rings_run() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let (mut socket, mut stream) = connected(&host, &mut machine.guest, 1);
    for _ in 0..3 {
        let vmm = machine.vmm();
        vmm.frontend.set_features(FEATURES).unwrap();
        for (index, ring) in vmm.rings.iter().enumerate() {
            vmm.frontend.set_vring_addr(index, &ring.config()).unwrap();
        }
        exchange(&mut machine.guest, &mut socket, &mut stream);
    }
}

/// No kick starts the queue again.
#[test]
fn t114_a_queue_that_gets_another_size_while_it_runs_is_served_from_its_new_start() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let (_socket, mut stream) = connected(&host, &mut machine.guest, 1);
    machine.guest.settle();
    machine
        .vmm()
        .frontend
        .set_vring_num(TX, crate::ring::SIZE / 2)
        .unwrap();
    assert_reset(&mut stream);
    assert!(host.device.is_active());
}
