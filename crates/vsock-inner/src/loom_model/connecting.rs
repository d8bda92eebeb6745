// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Answers of the device, concurrent with an end that waits for its connection.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::time::Duration;

use loom::thread;
use vsock_backend_api::{VsockAddr, VsockStream};

use super::{explore, pair};
use crate::handshake::{self, HandshakeError};
use crate::request::Request;
use crate::stream::VsockInnerStream;

/// A stream that waits for its connection, and the device end.
pub(super) fn pending(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let (mut near, mut far) = pair(capacity);
    far.request = Request::ask(5, &mut near.writer, &mut far.writer);
    near.set_nonblocking(true).unwrap();
    (near, far)
}

#[test]
fn a_confirmation_races_with_a_write_and_a_poll_of_the_descriptor() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        assert_eq!(far.requested_port(), Some(5));
        let confirming = thread::spawn(move || {
            far.confirm(1).unwrap();
            far
        });
        near.write_ready_fd().unwrap();
        drop(near.write(&[1]));
        let _far = confirming.join().unwrap();
        assert!(near.is_connected());
        assert!(near.writer.half.outgoing().space.polls_ready());
        assert_eq!(near.write(&[1]).unwrap(), 1);
    });
}

#[test]
fn a_confirmation_wakes_its_waiter_and_shows_the_addresses() {
    explore(|| {
        let (near, mut far) = pending(64);
        assert_eq!(far.requested_port(), Some(5));
        let addr = |cid| VsockAddr { cid, port: 5 };
        let confirming = thread::spawn(move || {
            far.confirm_from(addr(3), addr(2)).unwrap();
            far
        });
        handshake::wait(&near, 5, Duration::MAX, Duration::ZERO).unwrap();
        assert_eq!(near.peer(), Some(addr(3)));
        drop(confirming.join().unwrap());
    });
}

#[test]
fn a_refusal_wakes_its_waiter_and_makes_both_descriptors_ready() {
    explore(|| {
        let (mut near, far) = pending(64);
        let refusing = thread::spawn(move || drop(far));
        let refused = handshake::wait(&near, 5, Duration::MAX, Duration::ZERO);
        assert!(matches!(refused, Err(HandshakeError::Refused { .. })));
        near.as_raw_fd();
        near.write_ready_fd().unwrap();
        refusing.join().unwrap();
        assert!(
            near.reader.half.incoming().data.polls_ready()
                && near.writer.half.outgoing().space.polls_ready()
        );
        let refused = ErrorKind::ConnectionRefused;
        assert_eq!(near.read(&mut [0]).unwrap_err().kind(), refused);
        assert_eq!(near.write(&[0]).unwrap_err().kind(), refused);
    });
}

#[test]
fn a_descriptor_that_a_refusal_makes_ready_has_a_result() {
    explore(|| {
        let (mut near, far) = pending(64);
        near.write_ready_fd().unwrap();
        let refusing = thread::spawn(move || drop(far));
        if near.writer.half.outgoing().space.polls_ready() {
            let refused = near.finish_connect().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        refusing.join().unwrap();
    });
}

#[test]
fn a_write_that_meets_a_refusal_is_refused() {
    explore(|| {
        let (mut near, far) = pending(64);
        let refusing = thread::spawn(move || drop(far));
        thread::yield_now();
        let kind = near.write(&[1]).unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::WouldBlock | ErrorKind::ConnectionRefused),
            "{kind:?}"
        );
        refusing.join().unwrap();
    });
}

#[test]
fn a_write_mistakes_no_drop_after_a_confirmation_for_a_refusal() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        assert_eq!(far.requested_port(), Some(5));
        let answering = thread::spawn(move || {
            far.confirm(1).unwrap();
            drop(far);
        });
        thread::yield_now();
        if let Err(error) = near.write(&[1]) {
            assert_ne!(error.kind(), ErrorKind::ConnectionRefused);
        }
        answering.join().unwrap();
    });
}

#[test]
fn a_confirmation_before_a_drop_is_never_mistaken_for_a_refusal() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        assert_eq!(far.requested_port(), Some(5));
        let answering = thread::spawn(move || far.confirm(1).unwrap());
        let written = near.write(&[1]).map_err(|error| error.kind());
        let due = [
            Ok(1),
            Err(ErrorKind::WouldBlock),
            Err(ErrorKind::BrokenPipe),
        ];
        assert!(due.contains(&written), "{written:?}");
        answering.join().unwrap();
    });
}

#[test]
fn a_malformed_answer_is_never_mistaken_for_a_refusal() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        let reading = thread::spawn(move || {
            let wrong = [ErrorKind::WouldBlock, ErrorKind::InvalidData];
            let first = near.read(&mut [0]).unwrap_err().kind();
            assert!(wrong.contains(&first), "{first}");
            near
        });
        far.write_all(b"NO").unwrap();
        let mut near = reading.join().unwrap();
        near.as_raw_fd();
        assert!(near.reader.half.incoming().data.polls_ready());
        assert_eq!(
            near.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    });
}
