// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Front-ends and guests that come, go, and do what they must not.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vsock_compliance::poll::Deadline;
use vsock_inner::VsockInnerConnector;
use vsock_proto::Op;
use vsock_vhost_user::{DeviceBuilder, DeviceError, VsockDevice};

use crate::guest::{Guest, PATIENCE};
use crate::vmm::{FEATURES, PACKED, TX, Vmm};

struct Host {
    dir: TempDir,
    device: VsockDevice,
    connector: VsockInnerConnector,
}

impl Host {
    fn new(cid: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("vhost.sock");
        let (builder, connector) = DeviceBuilder::new(cid, socket).in_process().unwrap();
        Self {
            device: builder.spawn().unwrap(),
            dir,
            connector,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("vhost.sock")
    }
}

/// Connects to a listener of the host and gets an answer through it.
#[track_caller]
fn assert_served(guest: &mut Guest, connector: &VsockInnerConnector, port: u32) {
    let listener = connector.listen(port).unwrap();
    let (mut socket, answer) = guest.connect(2000, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut stream = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, b"served").unwrap();
    assert_eq!(guest.read(&mut socket, 6), b"served");
}

#[test]
fn the_configuration_space_holds_the_cid_and_ends() {
    let host = Host::new(0x1234_5678);
    let mut vmm = Vmm::connect(&host.socket());
    assert_eq!(vmm.config(0, 8), 0x1234_5678_u64.to_le_bytes());
    assert_eq!(vmm.config(2, 4), [0x34, 0x12, 0, 0]);
    assert_eq!(vmm.config(4, 8), [0; 8]);
}

#[test]
fn a_front_end_that_has_gone_is_followed_by_the_next() {
    let host = Host::new(121);
    let listener = host.connector.listen(1).unwrap();
    let mut guest = Guest::boot(&host.socket(), 121);
    guest.connect(2000, 1);
    let mut stream = listener.accept().unwrap();
    drop(guest);
    // What belonged to the old guest is reset; who listens goes on.
    let end = stream.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    let mut guest = Guest::boot(&host.socket(), 121);
    let (_, answer) = guest.connect(2000, 1);
    assert_eq!(answer.op, u16::from(Op::Response));
    let _stream = listener.accept().unwrap();
    assert_served(&mut guest, &host.connector, 2);
}

#[test]
fn a_device_is_active_while_the_guests_driver_is_up() {
    let host = Host::new(154);
    let vmm = Vmm::connect(&host.socket());
    assert!(!host.device.is_active(), "no driver");
    drop(vmm);
    let mut guest = Guest::boot(&host.socket(), 154);
    assert_served(&mut guest, &host.connector, 1);
    assert!(host.device.is_active());
    guest.vmm.stop();
    assert!(!host.device.is_active(), "the driver is reset");
    guest.start();
    let listener = host.connector.listen(2).unwrap();
    guest.connect(2001, 2);
    let mut stream = listener.accept().unwrap();
    assert!(host.device.is_active());
    drop(guest);
    // Its reset is of the same step as the device's.
    stream.read(&mut [0]).unwrap_err();
    assert!(!host.device.is_active(), "the VMM has gone");
}

#[test]
fn t101_a_reboot_resets_connections_and_keeps_listeners() {
    let host = Host::new(122);
    let listener = host.connector.listen(1).unwrap();
    let mut guest = Guest::boot(&host.socket(), 122);
    guest.connect(2000, 1);
    let mut stream = listener.accept().unwrap();
    guest.reboot();
    let end = stream.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    for port in 10..13 {
        assert_served(&mut guest, &host.connector, port);
        guest.reboot();
    }
}

#[test]
fn a_stopped_queue_says_how_far_it_was() {
    let host = Host::new(123);
    let mut guest = Guest::boot(&host.socket(), 123);
    assert_served(&mut guest, &host.connector, 1);
    guest.settle();
    let sent = guest.vmm.rings[TX].available();
    assert_eq!(guest.vmm.stop()[TX], u32::from(sent));
}

#[test]
fn a_queue_that_was_disabled_gives_the_notification_that_it_owed() {
    let host = Host::new(142);
    let mut guest = Guest::boot(&host.socket(), 142);
    let moment = || Deadline::after(Duration::from_millis(20));
    for _ in 0..5 {
        guest.request(2000, 1);
        guest.expect(Op::Reset);
        guest.settle();
        while guest.vmm.rings[TX].wait_for_call(moment()) {}
        assert!(guest.vmm.rings[TX].ask());
        guest.request(2000, 1);
        // Before the guest was notified of its packet, most likely.
        guest.vmm.frontend.set_vring_enable(TX, false).unwrap();
        let called = guest.vmm.rings[TX].wait_for_call(moment());
        guest.vmm.frontend.set_vring_enable(TX, true).unwrap();
        assert!(called || guest.vmm.rings[TX].wait_for_call(Deadline::after(PATIENCE)));
        guest.expect(Op::Reset);
    }
}

#[test]
fn packed_rings_are_refused_and_the_device_goes_on() {
    let host = Host::new(124);
    let mut vmm = Vmm::connect(&host.socket());
    assert!(vmm.start(FEATURES | PACKED).is_err());
    drop(vmm);
    let mut guest = Guest::boot(&host.socket(), 124);
    assert_served(&mut guest, &host.connector, 1);
}

#[test]
fn what_is_no_vhost_user_ends_its_connection_alone() {
    let host = Host::new(125);
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    std::io::Write::write_all(&mut stream, &[0xA5; 64]).unwrap();
    // The device hangs up.
    let _gone = stream.read(&mut [0]);
    let mut guest = Guest::boot(&host.socket(), 125);
    assert_served(&mut guest, &host.connector, 1);
}

#[test]
fn queues_that_lie_outside_of_memory_do_not_end_the_device() {
    let host = Host::new(126);
    let mut vmm = Vmm::connect(&host.socket());
    vmm.start(FEATURES).unwrap();
    // An index that is far ahead of the queue: the ring is broken, the device is not.
    vmm.rings[TX].break_index();
    drop(vmm);
    let mut guest = Guest::boot(&host.socket(), 126);
    assert_served(&mut guest, &host.connector, 1);
}

#[test]
fn t25_three_queues_exist_and_a_size_beyond_the_limit_is_refused() {
    let host = Host::new(139);
    let mut vmm = Vmm::connect(&host.socket());
    assert_eq!(vmm.frontend.get_queue_num().unwrap(), 3);
    vmm.frontend.set_features(FEATURES).unwrap();
    for index in 0..3 {
        vmm.frontend.set_vring_num(index, 64).unwrap();
    }
    assert!(vmm.frontend.set_vring_num(0, 1 << 15).is_err());
    drop(vmm);
    let mut guest = Guest::boot(&host.socket(), 139);
    assert_served(&mut guest, &host.connector, 1);
}

#[test]
fn t11_two_devices_do_not_share_a_cid_and_a_dropped_one_frees_it() {
    let host = Host::new(127);
    let other = host.dir.path().join("other.sock");
    let taken = DeviceBuilder::new(127, &other).spawn().unwrap_err();
    assert!(matches!(taken, DeviceError::CidTaken(_)), "{taken}");
    drop(host.device);
    DeviceBuilder::new(127, &other)
        .spawn()
        .unwrap()
        .stop()
        .unwrap();
}

#[test]
fn t5_reserved_cids_are_refused() {
    for cid in [0, 1, 2, u64::from(u32::MAX), u64::MAX, 1 << 32] {
        let refused = DeviceBuilder::new(cid, "/nowhere/vhost.sock")
            .spawn()
            .unwrap_err();
        assert!(matches!(refused, DeviceError::Cid(_)), "{cid}: {refused}");
    }
}

#[test]
fn queue_sizes_are_powers_of_two() {
    for size in [0, 1, 3, 1000, 40_000] {
        let builder = DeviceBuilder::new(128, "/nowhere/vhost.sock");
        let refused = builder.queue_size(size).spawn().unwrap_err();
        assert!(
            matches!(refused, DeviceError::QueueSize(_)),
            "{size}: {refused}"
        );
    }
}

#[test]
fn t99_a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let device = DeviceBuilder::new(129, &socket).spawn().unwrap();
    let refused = DeviceBuilder::new(130, &socket).spawn().unwrap_err();
    assert!(
        matches!(&refused, DeviceError::Socket { source, .. }
        if source.kind() == ErrorKind::AddrInUse),
        "{refused}"
    );
    device.stop().unwrap();
    assert!(!socket.exists());
}

#[test]
fn t99_a_file_that_is_no_socket_stays() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let refused = DeviceBuilder::new(131, &file).spawn().unwrap_err();
    assert!(matches!(refused, DeviceError::Socket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn t99_somebody_elses_socket_at_the_path_stays() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("vhost.sock");
    let device = DeviceBuilder::new(132, &socket).spawn().unwrap();
    std::fs::remove_file(&socket).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    device.stop().unwrap();
    assert!(socket.exists());
}

#[test]
fn a_device_stops_while_a_vmm_is_connected_and_while_none_is() {
    let host = Host::new(133);
    let guest = Guest::boot(&host.socket(), 133);
    let stopper = host.device.stopper();
    let waiter = thread::spawn(move || host.device.join());
    stopper.stop();
    waiter.join().unwrap().unwrap();
    drop(guest);
    Host::new(133).device.stop().unwrap();
}
