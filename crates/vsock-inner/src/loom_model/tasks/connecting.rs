// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that wait for their connection, concurrent with the device's answer.

use std::io::{ErrorKind, Write};

use loom::thread;
use vsock_backend_api::VsockStream;

use super::run;
use crate::loom_model::connecting::pending;
use crate::loom_model::explore;
use crate::stream::VsockInnerStream;

/// The result of a task that waits for its connection while the device runs `answer`. The request
/// fills the pipe, so an answer makes no space.
fn connect(answer: fn(VsockInnerStream) -> Option<VsockInnerStream>, ended: Option<ErrorKind>) {
    explore(move || {
        let (mut near, far) = pending(10);
        let answering = thread::spawn(move || answer(far));
        let got = run(|cx| near.poll_connected(cx));
        assert_eq!(got.err().map(|error| error.kind()), ended);
        assert_eq!(near.is_connected(), ended.is_none());
        answering.join().unwrap();
    });
}

#[test]
fn a_task_is_connected_by_a_text_answer() {
    let answer = |mut far: VsockInnerStream| {
        far.write_all(b"OK 1\n").unwrap();
        Some(far)
    };
    connect(answer, None);
}

#[test]
fn a_task_is_connected_by_a_confirmation() {
    let answer = |mut far: VsockInnerStream| {
        assert_eq!(far.requested_port(), Some(5));
        far.confirm(1).unwrap();
        Some(far)
    };
    connect(answer, None);
}

#[test]
fn a_task_is_connected_by_a_confirmation_before_a_drop() {
    let answer = |mut far: VsockInnerStream| {
        assert_eq!(far.requested_port(), Some(5));
        far.confirm(1).unwrap();
        None
    };
    connect(answer, None);
}

#[test]
fn a_task_learns_of_a_refusal() {
    let refuse = |far| {
        drop(far);
        None
    };
    connect(refuse, Some(ErrorKind::ConnectionRefused));
}

#[test]
fn a_task_learns_of_a_malformed_answer() {
    let answer = |mut far: VsockInnerStream| {
        far.write_all(b"NO\n").unwrap();
        Some(far)
    };
    connect(answer, Some(ErrorKind::InvalidData));
}

#[test]
fn a_task_that_writes_before_it_is_connected_is_woken_by_the_answer() {
    explore(|| {
        let (mut near, mut far) = pending(64);
        let answering = thread::spawn(move || {
            far.write_all(b"OK 1\n").unwrap();
            far
        });
        assert_eq!(run(|cx| near.poll_write(cx, &[1])).unwrap(), 1);
        drop(answering.join().unwrap());
    });
}
