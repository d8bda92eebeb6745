// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Front-ends and guests that come, go, and violate the rules.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vsock_compliance::poll::Deadline;
use vsock_proto::Op;
use vsock_vhost_user::{VhostUserError, VhostUserVsockBuilder};

use crate::closing::close;
use crate::guest::{GENEROUS, Guest};
use crate::host::{Host, next_cid};
use crate::vmm::{FEATURES, PACKED, TX};

#[test]
fn the_configuration_space_holds_the_cid_and_ends() {
    let host = Host::new();
    let mut vmm = host.vmm();
    let cid = host.cid.to_le_bytes();
    assert_eq!(vmm.config(0, 8), cid);
    assert_eq!(vmm.config(2, 4), [0x34, 0x12, 0, 0]);
    assert_eq!(vmm.config(4, 8), [0; 8]);
}

#[test]
fn the_next_front_end_is_served_after_one_has_gone() {
    let host = Host::new();
    let listener = host.connector.listen(1).unwrap();
    let mut guest = host.boot();
    guest.connect(2000, 1);
    let mut stream = listener.accept().unwrap();
    drop(guest);
    // The old guest's connections are reset; listeners stay.
    let end = stream.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    let mut guest = host.boot();
    let (_, answer) = guest.connect(2000, 1);
    assert_eq!(answer.op, u16::from(Op::Response));
    let _stream = listener.accept().unwrap();
    host.assert_serves(&mut guest, 2);
}

#[test]
fn a_device_is_active_while_the_guests_driver_is_up() {
    let host = Host::new();
    let vmm = host.vmm();
    assert!(!host.device.is_active(), "no driver");
    drop(vmm);
    let mut guest = host.boot();
    host.assert_serves(&mut guest, 1);
    assert!(host.device.is_active());
    guest.vmm.stop();
    assert!(!host.device.is_active(), "the driver is reset");
    guest.start();
    let listener = host.connector.listen(2).unwrap();
    guest.connect(2001, 2);
    let mut stream = listener.accept().unwrap();
    assert!(host.device.is_active());
    drop(guest);
    // The connection's reset happens in the same step as the device's.
    stream.read(&mut [0]).unwrap_err();
    assert!(!host.device.is_active(), "the VMM has gone");
}

#[test]
fn t101_a_reboot_resets_connections_and_keeps_listeners() {
    let host = Host::new();
    let listener = host.connector.listen(1).unwrap();
    let mut guest = host.boot();
    guest.connect(2000, 1);
    let mut stream = listener.accept().unwrap();
    guest.reboot();
    let end = stream.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    for port in 10..13 {
        host.assert_serves(&mut guest, port);
        guest.reboot();
    }
}

#[test]
fn stopping_a_queue_returns_its_position() {
    let (host, mut guest) = Host::booted();
    host.assert_serves(&mut guest, 1);
    guest.settle();
    let sent = guest.vmm.rings[TX].available();
    assert_eq!(guest.vmm.stop()[TX], u32::from(sent));
}

#[test]
fn a_disabled_queue_sends_its_pending_notification() {
    let (_host, mut guest) = Host::booted();
    let moment = || Deadline::after(Duration::from_millis(20));
    for _ in 0..5 {
        guest.request(2000, 1);
        guest.expect(Op::Reset);
        guest.settle();
        while guest.vmm.rings[TX].wait_for_call(moment()) {}
        assert!(guest.vmm.rings[TX].ask());
        guest.request(2000, 1);
        // Most likely before the guest was notified of its packet.
        guest.vmm.frontend.set_vring_enable(TX, false).unwrap();
        let called = guest.vmm.rings[TX].wait_for_call(moment());
        guest.vmm.frontend.set_vring_enable(TX, true).unwrap();
        assert!(called || guest.vmm.rings[TX].wait_for_call(Deadline::after(GENEROUS)));
        guest.expect(Op::Reset);
    }
}

/// Checks that the next front-end is served after one has done this.
fn assert_survives(act: impl FnOnce(&Host)) {
    let host = Host::new();
    act(&host);
    host.assert_serves(&mut host.boot(), 1);
}

#[test]
fn packed_rings_are_refused_and_the_device_continues() {
    assert_survives(|host| assert!(host.vmm().start(FEATURES | PACKED).is_err()));
}

#[test]
fn bytes_that_are_not_vhost_user_end_only_their_connection() {
    assert_survives(|host| {
        let mut stream = UnixStream::connect(host.socket()).unwrap();
        stream.write_all(&[0xA5; 64]).unwrap();
        // The device hangs up.
        let _gone = stream.read(&mut [0]);
    });
}

#[test]
fn queues_outside_memory_do_not_end_the_device() {
    assert_survives(|host| {
        let mut vmm = host.vmm();
        vmm.start(FEATURES).unwrap();
        // An index far ahead of the queue breaks the ring, but not the device.
        vmm.rings[TX].break_index();
    });
}

#[test]
fn t25_three_queues_exist_and_a_size_beyond_the_limit_is_refused() {
    assert_survives(|host| {
        let mut vmm = host.vmm();
        assert_eq!(vmm.frontend.get_queue_num().unwrap(), 3);
        vmm.frontend.set_features(FEATURES).unwrap();
        for index in 0..3 {
            vmm.frontend.set_vring_num(index, 64).unwrap();
        }
        assert!(vmm.frontend.set_vring_num(0, 1 << 15).is_err());
    });
}

#[test]
fn t11_two_devices_do_not_share_a_cid_and_a_dropped_one_frees_it() {
    let host = Host::new();
    let (cid, path) = (host.cid, host.path("other.sock"));
    let other = || VhostUserVsockBuilder::new(cid, &path).spawn();
    let taken = other().unwrap_err();
    assert!(matches!(taken, VhostUserError::CidTaken(_)), "{taken}");
    drop(host.device);
    other().unwrap().stop().unwrap();
}

#[test]
fn t5_reserved_cids_are_refused() {
    for cid in [0, 1, 2, u64::from(u32::MAX), u64::MAX, 1 << 32] {
        let refused = VhostUserVsockBuilder::new(cid, "/nowhere/vhost.sock").spawn();
        let refused = refused.unwrap_err();
        assert!(matches!(refused, VhostUserError::Cid(_)), "{refused}");
    }
}

#[test]
fn queue_sizes_are_powers_of_two() {
    for size in [0, 1, 3, 1000, 40_000] {
        let builder = VhostUserVsockBuilder::new(128, "/nowhere/vhost.sock");
        let refused = builder.queue_size(size).spawn().unwrap_err();
        assert!(matches!(refused, VhostUserError::QueueSize(_)), "{refused}");
    }
}

/// Returns why a device cannot listen on this path.
fn refused(socket: &Path) -> ErrorKind {
    match VhostUserVsockBuilder::new(next_cid(), socket).spawn() {
        Err(VhostUserError::Socket { source, .. }) => source.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn t99_a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    close([UnixListener::bind(&socket).unwrap()]);
    let device = VhostUserVsockBuilder::new(129, &socket).spawn().unwrap();
    assert_eq!(refused(&socket), ErrorKind::AddrInUse);
    device.stop().unwrap();
    assert!(!socket.exists());
}

#[test]
fn t99_files_that_are_not_sockets_and_sockets_in_use_are_kept() {
    let host = Host::new();
    let file = host.path("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    assert_eq!(refused(&file), ErrorKind::AddrInUse);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    let socket = host.socket();
    std::fs::remove_file(&socket).unwrap();
    let _other = UnixListener::bind(&socket).unwrap();
    host.device.stop().unwrap();
    assert!(socket.exists());
}

#[test]
fn a_device_stops_while_a_vmm_is_connected_and_while_none_is() {
    let (host, guest) = Host::booted();
    let stopper = host.device.stopper();
    let waiter = thread::spawn(move || host.device.join());
    stopper.stop();
    waiter.join().unwrap().unwrap();
    drop(guest);
    Host::new().device.stop().unwrap();
}

/// Much longer than any reply takes.
const LONG: Duration = Duration::from_secs(5);

/// Creates a guest that has streamed until the device asked for a batch.
fn streaming(host: &Host, port: u32) -> Guest {
    let listener = host.connector.listen(port).unwrap();
    let mut guest = host.boot();
    let (stream, answer) = guest.connect(2000, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut reader = listener.accept().unwrap();
    thread::spawn(move || while reader.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
    for _ in 0..2000 {
        guest.write(&stream, &[7; 50]);
        if (2..100).contains(&guest.vmm.rings[TX].awaited()) {
            break;
        }
    }
    guest
}

/// Returns whether a request is answered, ignoring earlier packets.
fn is_answered(guest: &mut Guest) -> bool {
    while let Some((packet, _)) = guest.packet_within(LONG) {
        if packet.dst_port == 2001 {
            return true;
        }
    }
    false
}

/// How often to try this, because the batch may end by itself first.
const ATTEMPTS: u32 = 10;

/// Checks that such an interruption by the front-end does not stall the connection.
fn assert_continues(interrupt: impl Fn(&mut Guest) -> u16) {
    let host = Host::new();
    for attempt in 0..ATTEMPTS {
        let mut guest = streaming(&host, 100 + attempt);
        let awaited = interrupt(&mut guest);
        guest.request(2001, 1);
        assert!(is_answered(&mut guest), "{awaited} was awaited");
    }
}

#[test]
fn a_guest_stopped_while_its_kicks_waited_is_served_when_it_continues() {
    assert_continues(|guest| {
        let bases = guest.vmm.stop();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.go_on(FEATURES, bases);
        awaited
    });
}

#[test]
fn a_guest_with_a_disabled_queue_is_served_when_the_queue_is_enabled_again() {
    assert_continues(|guest| {
        guest.vmm.frontend.set_vring_enable(TX, false).unwrap();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.frontend.set_vring_enable(TX, true).unwrap();
        awaited
    });
}
