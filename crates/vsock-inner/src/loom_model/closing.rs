// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Shutdowns, drops and aborts, concurrent with reads, writes and polls at the other end.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use loom::thread;
use vsock_backend_api::VsockStream;

use super::{assert_readability, assert_writability, direction, explore, pair, read_all};
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;

/// The peer has sent `left` bytes when this end writes two and leaves. Checks how the peer's
/// reading ends.
fn leave(left: &'static [u8], leave: fn(VsockInnerStream), end: Option<ErrorKind>) {
    explore(move || {
        let (mut near, mut far) = pair(8);
        far.write_all(left).unwrap();
        let reading = thread::spawn(move || read_all(&mut far));
        near.write_all(&[1, 2]).unwrap();
        leave(near);
        assert_eq!(reading.join().unwrap(), (vec![1, 2], end));
    });
}

#[test]
fn the_end_of_a_dropped_stream_comes_after_the_bytes() {
    leave(&[], drop, None);
}

#[test]
fn the_reset_of_a_stream_with_unread_bytes_comes_after_the_bytes_it_sent() {
    leave(&[9], drop, Some(ErrorKind::ConnectionReset));
}

#[test]
fn the_reset_of_an_aborted_stream_comes_after_the_bytes() {
    leave(
        &[],
        VsockInnerStream::abort,
        Some(ErrorKind::ConnectionReset),
    );
}

/// Checks how a blocked writer, or one about to block, ends when `end` is run on the reader.
fn end_blocked_write(end: fn(VsockInnerReader), kind: ErrorKind) {
    explore(move || {
        let (mut writer, reader, _rest) = direction(1);
        writer.write_all(&[1]).unwrap();
        // What a drop discards makes space, so a byte or two may still be accepted.
        let writing = thread::spawn(move || writer.write_all(&[2, 3, 4]).unwrap_err().kind());
        end(reader);
        assert_eq!(writing.join().unwrap(), kind);
    });
}

#[test]
fn a_blocked_writer_learns_of_the_readers_drop() {
    end_blocked_write(drop, ErrorKind::ConnectionReset);
}

#[test]
fn a_blocked_writer_learns_of_the_readers_shutdown() {
    let shut_down = |mut reader: VsockInnerReader| {
        reader.shutdown().unwrap();
        assert_eq!(read_all(&mut reader), (vec![1], None));
    };
    end_blocked_write(shut_down, ErrorKind::BrokenPipe);
}

#[test]
fn both_ends_may_be_dropped_at_the_same_time() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        near.as_raw_fd();
        far.as_raw_fd();
        near.write_all(&[1, 2, 3]).unwrap();
        let dropping = thread::spawn(move || drop(near));
        drop(far.write(&[4]));
        drop(far);
        dropping.join().unwrap();
    });
}

/// How both directions have ended for the end whose peer was dropped.
fn both_ends(stream: &mut VsockInnerStream) -> (Result<usize, ErrorKind>, ErrorKind) {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]).map_err(|error| error.kind());
    (read, stream.write(&[9]).unwrap_err().kind())
}

const CLOSED: (Result<usize, ErrorKind>, ErrorKind) = (Ok(0), ErrorKind::BrokenPipe);
const RESET: (Result<usize, ErrorKind>, ErrorKind) =
    (Err(ErrorKind::ConnectionReset), ErrorKind::ConnectionReset);

#[test]
fn a_byte_racing_with_a_drop_is_unread_or_late_for_both_directions() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        let dropping = thread::spawn(move || drop(near.write(&[2])));
        let written = far.write(&[1]).map_err(|error| error.kind());
        dropping.join().unwrap();
        assert_eq!(
            far.read(&mut [0; 4]).unwrap(),
            1,
            "its own byte comes first"
        );
        let ends = both_ends(&mut far);
        match written {
            Ok(1) => assert!(ends == CLOSED || ends == RESET, "{ends:?}"),
            refused => {
                assert_eq!(refused, Err(ErrorKind::BrokenPipe));
                assert_eq!(ends, CLOSED);
            }
        }
    });
}

#[test]
fn a_byte_racing_with_an_abort_finds_a_reset_in_both_directions() {
    explore(|| {
        let (near, mut far) = pair(8);
        let aborting = thread::spawn(move || near.abort());
        let written = far.write(&[1]).map_err(|error| error.kind());
        assert!(matches!(written, Ok(1) | Err(ErrorKind::ConnectionReset)));
        aborting.join().unwrap();
        assert_eq!(both_ends(&mut far), RESET);
    });
}

#[test]
fn a_read_racing_with_a_drop_takes_the_byte_or_makes_the_drop_a_reset() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        far.write_all(&[1]).unwrap();
        let dropping = thread::spawn(move || {
            near.set_nonblocking(true).unwrap();
            let taken = near.read(&mut [0; 4]).unwrap();
            drop(near);
            taken as u64
        });
        let sent = 1 + far.write(&[2]).unwrap_or(0) as u64;
        let taken = dropping.join().unwrap();
        let ends = both_ends(&mut far);
        assert!(ends == CLOSED || ends == RESET && taken < sent, "{ends:?}");
    });
}

#[test]
fn polled_descriptors_are_right_after_a_drop_racing_with_a_write() {
    explore(|| {
        let (near, far) = pair(2);
        let (mut reader, mut writer) = far.into_split();
        reader.as_raw_fd();
        writer.write_ready_fd().unwrap();
        let dropping = thread::spawn(move || drop(near));
        writer.set_nonblocking(true).unwrap();
        drop(writer.write(&[1, 2]));
        drop(writer.write(&[3]));
        dropping.join().unwrap();
        assert!(
            reader.half.incoming().data.polls_ready() && writer.half.outgoing().space.polls_ready()
        );
        assert_readability(&mut reader);
        assert_writability(&mut writer);
    });
}

#[test]
fn a_blocked_writer_learns_of_an_abort() {
    explore(|| {
        let (near, mut far) = pair(1);
        far.write_all(&[1]).unwrap();
        let writing = thread::spawn(move || far.write_all(&[2, 3, 4]).unwrap_err().kind());
        near.abort();
        assert_eq!(writing.join().unwrap(), ErrorKind::ConnectionReset);
    });
}
