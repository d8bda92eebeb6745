// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The credit that two devices report to each other.

use vsock_backend_api::{VsockAddr, VsockBackend, VsockCredit, VsockStream};
use vsock_compliance::poll::{PollInterest, Watch};
use vsock_inner::VsockInnerBackend;

/// A device reads the credit, and then waits for it to differ from that. A change in between, or a
/// drop of the other end, must be an edge even though the descriptor is still ready.
#[test]
fn a_change_between_the_look_at_credit_and_the_wait_is_an_edge() {
    let addr = |cid| VsockAddr { cid, port: 80 };
    let mut backend = VsockInnerBackend::new().unwrap();
    let near = backend
        .get_connector()
        .start_connect_from(addr(3), addr(4))
        .unwrap();
    let far = backend.accept().unwrap();
    let tell = |fwd_cnt| {
        far.tell_credit(VsockCredit {
            buf_alloc: 4096,
            fwd_cnt,
        });
    };
    let fd = near.credit_fd(None).unwrap();
    let mut edges = Watch::edges(fd, PollInterest::Read).unwrap();
    let mut is_edge = || edges.now().unwrap().is_some();
    assert!(!is_edge());
    tell(1);
    assert!(is_edge());
    let known = near.peer_credit();
    tell(2);
    near.credit_fd(known).unwrap();
    assert!(is_edge(), "a change is missed");
    let known = near.peer_credit();
    drop(far);
    near.credit_fd(known).unwrap();
    assert!(is_edge(), "the drop is missed");
}
