// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drivers that are reset lose their connections, and the next driver is served.

use super::*;

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
fn t114_new_features_indicate_a_new_driver_with_each_vmm() {
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
fn t114_reset_owner_and_reset_device_reset_a_driver_that_continues() {
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
