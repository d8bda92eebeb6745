// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest whose kicks wait, and a front-end that stops it just then.

use std::io::Read;
use std::thread;
use std::time::Duration;

use vhost::vhost_user::VhostUserFrontend;
use vsock_proto::Op;

use crate::guest::Guest;
use crate::host::Host;
use crate::vmm::{FEATURES, TX};

/// Long for any answer; what has not come by then does not come.
const LONG: Duration = Duration::from_secs(5);

/// A guest that has streamed until it was asked for a batch.
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

/// A front-end that interrupts its guest so is no reason for a halt.
fn assert_goes_on(interrupt: impl Fn(&mut Guest) -> u16) {
    let host = Host::new();
    for attempt in 0..ATTEMPTS {
        let mut guest = streaming(&host, 100 + attempt);
        let awaited = interrupt(&mut guest);
        guest.request(2001, 1);
        assert!(is_answered(&mut guest), "{awaited} was awaited");
    }
}

#[test]
fn a_guest_that_was_stopped_while_its_kicks_waited_is_served_when_it_goes_on() {
    assert_goes_on(|guest| {
        let bases = guest.vmm.stop();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.go_on(FEATURES, bases);
        awaited
    });
}

#[test]
fn a_guest_whose_queue_was_disabled_while_its_kicks_waited_is_served_when_it_is_enabled() {
    assert_goes_on(|guest| {
        guest.vmm.frontend.set_vring_enable(TX, false).unwrap();
        let awaited = guest.vmm.rings[TX].awaited();
        guest.vmm.frontend.set_vring_enable(TX, true).unwrap();
        awaited
    });
}
