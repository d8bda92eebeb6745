// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest whose kicks wait, and a front-end that stops it just then.

use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;
use vsock_inner::VsockInnerConnector;
use vsock_proto::Op;
use vsock_vhost_user::{VhostUserVsock, VhostUserVsockBuilder};

use crate::guest::{Guest, Socket};
use crate::vmm::{FEATURES, TX};

/// Long for any answer; what has not come by then does not come.
const LONG: Duration = Duration::from_secs(5);

fn device(cid: u64) -> (TempDir, VhostUserVsock, VsockInnerConnector) {
    let dir = TempDir::new().unwrap();
    let (builder, connector) = VhostUserVsockBuilder::new(cid, dir.path().join("vhost.sock"))
        .in_process()
        .unwrap();
    (dir, builder.spawn().unwrap(), connector)
}

/// A guest that has streamed until it was asked for a batch.
fn streaming(
    socket: &Path,
    cid: u64,
    connector: &VsockInnerConnector,
    port: u32,
) -> (Guest, Socket) {
    let listener = connector.listen(port).unwrap();
    let mut guest = Guest::boot(socket, cid);
    let (stream, answer) = guest.connect(2000, port);
    assert_eq!(answer.op, u16::from(Op::Response));
    let mut host = listener.accept().unwrap();
    thread::spawn(move || while host.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {});
    for _ in 0..2000 {
        guest.write(&stream, &[7; 50]);
        if (2..100).contains(&guest.vmm.rings[TX].awaited()) {
            break;
        }
    }
    (guest, stream)
}

/// Whether the request is answered, past what was said before.
fn is_answered(guest: &mut Guest) -> bool {
    while let Some((packet, _)) = guest.packet_within(LONG) {
        if packet.dst_port == 2001 {
            return true;
        }
    }
    false
}

/// How often that is tried, because the batch may end by itself before.
const ATTEMPTS: u32 = 10;

#[test]
fn a_guest_that_was_stopped_while_its_kicks_waited_is_served_when_it_goes_on() {
    let (dir, _device, connector) = device(161);
    let socket = dir.path().join("vhost.sock");
    for attempt in 0..ATTEMPTS {
        let (mut guest, _) = streaming(&socket, 161, &connector, 100 + attempt);
        let bases = guest.vmm.stop();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.go_on(FEATURES, bases);
        guest.request(2001, 1);
        assert!(is_answered(&mut guest), "{awaited} was awaited");
    }
}

#[test]
fn a_guest_whose_queue_was_disabled_while_its_kicks_waited_is_served_when_it_is_enabled() {
    let (dir, _device, connector) = device(162);
    let socket = dir.path().join("vhost.sock");
    for attempt in 0..ATTEMPTS {
        let (mut guest, _) = streaming(&socket, 162, &connector, 100 + attempt);
        guest.vmm.frontend.set_vring_enable(TX, false).unwrap();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.frontend.set_vring_enable(TX, true).unwrap();
        guest.request(2001, 1);
        assert!(is_answered(&mut guest), "{awaited} was awaited");
    }
}
