// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guests of different VMMs that are paused, reset and moved, and the effect on both ends of their
//! connections.

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

/// Pauses the guest, while both sides write and a client connects. Neither side notices the pause.
fn pauses(monitor: &'static Monitor) {
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    let (mut socket, mut stream) = connected(&host, &mut machine.guest, 1);
    let pause = monitor.pause.unwrap();
    for port in 10..13 {
        let bases = (pause.begin)(machine.vmm());
        assert!(!host.device.is_active());
        machine.drain();
        stream.write_all(b"meanwhile").unwrap();
        let client = host.connecting(port, |mut client| client.write_all(b"hello").unwrap());
        machine.guest.write(&socket, b"so far");
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(
            nothing.kind(),
            ErrorKind::WouldBlock,
            "neither bytes nor an end"
        );
        stream.set_nonblocking(false).unwrap();
        assert!(machine.guest.packet_within(MOMENT).is_none());

        (pause.end)(machine.vmm(), DRIVER, bases);
        let mut bytes = [0; 6];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"so far");
        // The idle reader and the client are served, in any order.
        let (mut read, mut accepted) = (Vec::new(), None);
        while read.len() < 9 || accepted.is_none() {
            let (header, payload) = machine.guest.packet();
            match Op::try_from(header.op).unwrap() {
                Op::Request => accepted = Some(machine.guest.respond(&header)),
                Op::ReadWrite if header.dst_port == port => {}
                op => {
                    assert_eq!((op, header.dst_port), (Op::ReadWrite, 1));
                    read.extend(payload);
                }
            }
        }
        assert_eq!(read, b"meanwhile");
        socket.take(9);
        machine.guest.say(&socket, Op::CreditUpdate, 0, &[]);
        client.join().unwrap();
        let mut client = accepted.unwrap();
        client.take(0);
        machine.guest.say(&client, Op::Reset, 0, &[]);
    }
    machine.drain();
    assert_eq!(host.device.queue_counters().transport_resets, 0);
    host.assert_serves(&mut machine.guest, 2);
}

#[test]
fn t115_qemu_stop_and_cont_keeps_connections() {
    pauses(&QEMU);
}

#[test]
fn t114_cloud_hypervisor_pause_and_resume_keeps_connections() {
    pauses(&CLOUD_HYPERVISOR);
}

#[test]
fn t115_crosvm_suspend_and_resume_keeps_connections() {
    pauses(&CROSVM);
}

/// Resets a driver and starts another one, in the same place or elsewhere.
fn resets(monitor: &'static Monitor) {
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    for (port, moved) in [(1, false), (2, true), (3, false)] {
        let (old, mut stream) = connected(&host, &mut machine.guest, port);
        machine.reset_driver();
        if moved {
            for (index, ring) in (3..).zip(&mut machine.vmm().rings) {
                ring.move_to(index);
            }
        }
        machine.load_driver(DRIVER);
        assert_reset(&mut stream);
        // The new driver does not know the connection, so the only packets that it gets are
        // replies.
        machine.guest.write(&old, b"late");
        let (answer, _) = machine.guest.expect(Op::Reset);
        assert_eq!(answer.dst_port, port);
        host.assert_serves(&mut machine.guest, 100 + port);
    }
    assert_eq!(host.device.queue_counters().transport_resets, 0);
}

#[test]
fn t115_qemu_reboot_resets_connections() {
    resets(&QEMU);
}

#[test]
fn t115_qemu_7_reboot_resets_connections() {
    resets(&QEMU_7);
}

#[test]
fn t114_cloud_hypervisor_driver_reset_resets_connections() {
    resets(&CLOUD_HYPERVISOR);
}

#[test]
fn t114_early_cloud_hypervisor_driver_reset_resets_connections() {
    resets(&EARLY_CLOUD_HYPERVISOR);
}

#[test]
fn t114_crosvm_driver_reset_resets_connections() {
    resets(&CROSVM);
}

#[test]
fn t114_libkrun_driver_reset_resets_connections() {
    resets(&LIBKRUN);
}

#[test]
fn t115_qemu_reset_device_ends_connections_before_another_driver_comes() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &QEMU);
    let (_socket, mut stream) = connected(&host, &mut machine.guest, 1);
    machine.reset_driver();
    assert_reset(&mut stream);
}

/// The driver of the second boot supports messages, the first one did not.
fn negotiates_again(monitor: &'static Monitor) {
    let host = Host::with(|path, builder| {
        builder.backend(Box::new(UnixSeqpacketBackend::bind(path).unwrap()))
    });
    let mut machine = Machine::boot(&host, monitor);
    let ask = |machine: &mut Machine| {
        machine.guest.request_as(2, 1, 1);
        machine.guest.expect(Op::Reset).0.socket_type
    };
    // The counter distinguishes the RST to an unknown type from that to a refused connection.
    ask(&mut machine);
    let rejected = host.device.counters().packets_rejected;
    assert_eq!(rejected, 1, "{}", monitor.name);
    machine.reset_driver();
    machine.load_driver(DRIVER | SocketTypes::F_SEQPACKET);
    ask(&mut machine);
    assert_eq!(host.device.counters().packets_rejected, rejected);
}

#[test]
fn t114_new_features_count_with_each_monitor() {
    for monitor in [
        &QEMU,
        &QEMU_7,
        &CLOUD_HYPERVISOR,
        &EARLY_CLOUD_HYPERVISOR,
        &LIBKRUN,
    ] {
        negotiates_again(monitor);
    }
    // crosvm sends the features in parts, as the driver writes them.
    negotiates_again(&CROSVM);
}

#[test]
fn t116_cloud_hypervisor_reconnects_and_its_guest_gets_a_transport_reset() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let (_idle, mut stream) = connected(&host, &mut machine.guest, 1);
    machine.vmm().reconnect(&host.socket());
    assert_reset(&mut stream);
    (CLOUD_HYPERVISOR.reconnect.unwrap())(machine.vmm(), DRIVER);
    machine.expect_transport_reset();
    // On a busy machine, RSTs may come first: the VMM enables the event queue after the others.
    machine.drain();
    host.assert_serves(&mut machine.guest, 2);
    let (mut socket, mut stream) = connected(&host, &mut machine.guest, 1);
    exchange(&mut machine.guest, &mut socket, &mut stream);
}

/// The VMM starts the event queue last. The event would close connections opened before it.
#[test]
fn t106_the_event_comes_first_though_its_queue_is_the_last_to_start() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    for port in 1.. {
        let (_idle, _stream) = connected(&host, &mut machine.guest, port);
        machine.drain();
        machine.vmm().hang_up();
        // The device starts with a client that has connected meanwhile.
        let client = host.connecting(100 + port, |mut client| {
            client.write_all(b"to the guest").unwrap();
            client.set_read_timeout(Some(GENEROUS)).unwrap();
            client.read_exact(&mut [0; 11]).unwrap();
        });
        machine.vmm().reconnect(&host.socket());
        let begun = Instant::now();
        (CLOUD_HYPERVISOR.reconnect.unwrap())(machine.vmm(), DRIVER);
        let was_quick = begun.elapsed() < EVENT_QUEUE_WAIT;
        let ring = &mut machine.vmm().rings[EVENT];
        assert!(ring.wait(Deadline::after(GENEROUS)).is_some());
        let is_first = machine.guest.packet_within(MOMENT).is_none();
        let ring = &mut machine.vmm().rings[EVENT];
        let old = ring.available();
        ring.offer(EVENT_BUFFER, true);
        ring.notify(old);
        if was_quick {
            assert!(is_first, "a packet came before the event");
            let mut socket = machine.guest.accept(100 + port);
            assert_eq!(machine.guest.read(&mut socket, 12), b"to the guest");
            machine.guest.write(&socket, b"to the host");
            client.join().unwrap();
            return;
        }
        // On a busy machine, the device may have stopped waiting.
        machine.drain();
        drop(client);
    }
}

#[test]
fn t116_cloud_hypervisor_goes_on_with_another_program_and_its_guest_gets_a_transport_reset() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let (idle, _stream) = connected(&host, &mut machine.guest, 1);
    machine.vmm().hang_up();
    // As if the program had been killed: nothing remembers the connection.
    let (path, cid) = (host.path("again.sock"), host.cid);
    host.device.stop().unwrap();
    let (builder, connector) = VhostUserVsockBuilder::new(cid, &path).in_process().unwrap();
    let device = builder.spawn().unwrap();
    let host = Host {
        device,
        connector,
        cid,
        dir: host.dir,
    };
    machine.vmm().reconnect(&path);
    (CLOUD_HYPERVISOR.reconnect.unwrap())(machine.vmm(), DRIVER);
    machine.expect_transport_reset();
    machine.guest.write(&idle, b"late");
    let (answer, _) = machine.guest.expect(Op::Reset);
    assert_eq!(answer.dst_port, 1);
    // Packets that the previous device had not taken were answered too.
    machine.drain();
    host.assert_serves(&mut machine.guest, 2);
}

/// A front-end that does not pass on the event queue, and reconnects.
#[test]
fn t116_an_idle_reader_gets_an_rst_where_the_event_queue_is_not_passed_on() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &QEMU_7);
    let (_idle, mut stream) = connected(&host, &mut machine.guest, 1);
    machine.guest.settle();
    machine.vmm().reconnect(&host.socket());
    assert_reset(&mut stream);
    let bases = [RX, TX, EVENT].map(|index| machine.vmm().rings[index].used());
    (QEMU_7.connect)(machine.vmm());
    (QEMU_7.pause.unwrap().end)(machine.vmm(), DRIVER, bases);
    let (rst, _) = machine.guest.expect(Op::Reset);
    assert_eq!((rst.src_port, rst.dst_port), (1, 1));
    host.assert_serves(&mut machine.guest, 2);
}

#[test]
fn t114_reset_owner_and_reset_device_are_resets_of_a_driver_that_goes_on() {
    for request in [FrontendReq::RESET_OWNER, FrontendReq::RESET_DEVICE] {
        let host = Host::new();
        let mut machine = Machine::boot(&host, &QEMU);
        let (_idle, mut stream) = connected(&host, &mut machine.guest, 1);
        machine.guest.settle();
        assert!(machine.vmm().request(request, &[], &[]));
        assert_reset(&mut stream);
        assert!(!host.device.is_active(), "its queues are disabled");
        let bases = [RX, TX, EVENT].map(|index| machine.vmm().rings[index].used());
        (QEMU.pause.unwrap().end)(machine.vmm(), DRIVER, bases);
        let (rst, _) = machine.guest.expect(Op::Reset);
        assert_eq!(rst.dst_port, 1, "{request:?}");
        host.assert_serves(&mut machine.guest, 2);
    }
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

/// Creates bytes that identify their positions.
fn pattern(len: usize) -> Vec<u8> {
    let byte = |at: usize| u8::try_from((at / 251 + at) % 256).unwrap();
    (0..len).map(byte).collect()
}

/// Pauses the guest repeatedly while both sides stream.
fn streams_through_pauses(monitor: &'static Monitor) {
    const LEN: usize = 1 << 20;
    /// How many bytes the guest sends before it looks for packets again.
    const PIECE: usize = 3000;
    let host = Host::new();
    let mut machine = Machine::boot(&host, monitor);
    let (mut socket, stream) = connected(&host, &mut machine.guest, 1);
    machine.count_sent(11);
    let (mut reader, mut writer) = stream.into_split();
    let writes = thread::spawn(move || writer.write_all(&pattern(LEN)).map(|()| writer));
    let reads = thread::spawn(move || {
        let mut bytes = vec![0; LEN];
        reader.read_exact(&mut bytes).map(|()| bytes)
    });
    let (mut sent, mut received, mut turn) = (0, Vec::new(), 0);
    let to_host = pattern(LEN);
    while sent < LEN || received.len() < LEN {
        turn += 1;
        let paused = (turn % 8 == 0).then(|| monitor.pause.unwrap());
        let bases = paused.map(|pause| (pause.begin)(machine.vmm()));
        let more = PIECE.min(LEN - sent);
        // Bytes that the host has not read stay within its window.
        if machine.may_send(more) {
            machine.guest.write(&socket, &to_host[sent..sent + more]);
            machine.count_sent(more);
            sent += more;
        }
        if let (Some(pause), Some(bases)) = (paused, bases) {
            (pause.end)(machine.vmm(), DRIVER, bases);
        }
        while let Some((header, payload)) = machine.guest.packet_within(Duration::from_millis(1)) {
            machine.freed = header.fwd_cnt;
            if header.op == u16::from(Op::ReadWrite) {
                socket.take(header.len);
                received.extend(payload);
                machine.guest.say(&socket, Op::CreditUpdate, 0, &[]);
            }
        }
        if sent < LEN && !machine.may_send(PIECE) {
            machine.guest.say(&socket, Op::CreditRequest, 0, &[]);
        }
    }
    assert!(received == to_host, "{}", monitor.name);
    assert!(reads.join().unwrap().unwrap() == to_host);
    drop(writes.join().unwrap().unwrap());
}

#[test]
fn t115_qemu_streams_through_pauses() {
    streams_through_pauses(&QEMU);
}

#[test]
fn t114_cloud_hypervisor_streams_through_pauses() {
    streams_through_pauses(&CLOUD_HYPERVISOR);
}

#[test]
fn t115_crosvm_streams_through_pauses() {
    streams_through_pauses(&CROSVM);
}

#[test]
fn t117_a_driver_that_never_offers_its_event_buffer_again_is_served() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let _connection = connected(&host, &mut machine.guest, 1);
    machine.vmm().reconnect(&host.socket());
    (CLOUD_HYPERVISOR.reconnect.unwrap())(machine.vmm(), DRIVER);
    let ring = &mut machine.vmm().rings[EVENT];
    assert!(ring.wait(Deadline::after(GENEROUS)).is_some());
    assert_eq!(machine.guest.connect_to(2, 2), Some(Op::Reset));
}

#[test]
fn t113_an_event_queue_that_starts_later_is_notified_and_stands_where_it_was_used() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let vmm = machine.vmm();
    // The previous device may have had a notification pending.
    assert!(vmm.rings[EVENT].wait_for_call(Deadline::after(GENEROUS)));
    // The VMM passed the available index; none of these buffers was used.
    assert_eq!(vmm.frontend.get_vring_base(EVENT).unwrap(), 0);
}

#[test]
fn t116_an_event_queue_that_starts_before_the_others_goes_on_where_it_was_used() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &QEMU);
    set_event_queue(machine.vmm(), 0);
    for port in 1..4 {
        let _connection = connected(&host, &mut machine.guest, port);
        machine.guest.settle();
        assert!(machine.vmm().request(FrontendReq::RESET_DEVICE, &[], &[]));
        let bases = [RX, TX, EVENT].map(|index| machine.vmm().rings[index].used());
        set_event_queue(machine.vmm(), bases[EVENT].into());
        (QEMU.pause.unwrap().end)(machine.vmm(), DRIVER, bases);
        machine.expect_transport_reset();
        machine.drain();
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
