// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Front-ends that reconnect, and the transport reset event for the guest.

use super::*;

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
fn t106_the_event_comes_first_even_if_its_queue_starts_last() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    for port in 1.. {
        let (_idle, mut stream) = connected(&host, &mut machine.guest, port);
        machine.drain();
        machine.vmm().hang_up();
        // From here on the device gives the guest no packets.
        assert_reset(&mut stream);
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
fn t116_cloud_hypervisor_gets_another_program_and_its_guest_a_transport_reset() {
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
fn t116_an_idle_reader_gets_an_rst_if_the_event_queue_is_not_passed_on() {
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
fn t117_a_driver_that_never_returns_its_event_buffer_is_served() {
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
fn t113_an_event_queue_that_starts_later_is_notified_and_continues_at_its_used_index() {
    let host = Host::new();
    let mut machine = Machine::boot(&host, &CLOUD_HYPERVISOR);
    let vmm = machine.vmm();
    // The previous device may have had a notification pending.
    assert!(vmm.rings[EVENT].wait_for_call(Deadline::after(GENEROUS)));
    // The VMM passed the available index; none of these buffers was used.
    assert_eq!(vmm.frontend.get_vring_base(EVENT).unwrap(), 0);
}

#[test]
fn t116_an_event_queue_that_starts_before_the_others_continues_at_its_used_index() {
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
