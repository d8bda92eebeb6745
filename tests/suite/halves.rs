// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The two halves of a stream, and what each has of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use vsock_backend_api::VsockStream;
use vsock_compliance::call::Call;
use vsock_compliance::poll::{PollInterest, Watch, wait_ready};
use vsock_inner::{VsockInnerReader, VsockInnerStream, VsockInnerWriter};
use vsock_tests::assert_fails;

use crate::{soon, waiting};

fn pair() -> (VsockInnerStream, VsockInnerStream) {
    let (near, mut far) = VsockInnerStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

fn split() -> (VsockInnerReader, VsockInnerWriter, VsockInnerStream) {
    let (near, far) = pair();
    let (reader, writer) = near.into_split();
    (reader, writer, far)
}

#[test]
fn halves_inherit_mode_and_timeouts() {
    let (mut near, _far) = pair();
    near.set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    let (mut reader, _writer) = near.into_split();
    assert_fails(reader.read(&mut [0]), ErrorKind::TimedOut);

    let (mut near, _far) = pair();
    near.set_nonblocking(true).unwrap();
    while near.write(&[0; 4096]).is_ok() {}
    let (mut reader, mut writer) = near.into_split();
    assert_fails(reader.read(&mut [0]), ErrorKind::WouldBlock);
    assert_fails(writer.write(&[0]), ErrorKind::WouldBlock);
    writer.set_nonblocking(false).unwrap();
    writer.set_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_fails(writer.write(&[0]), ErrorKind::TimedOut);
}

#[test]
fn each_half_has_its_own_mode_after_the_split() {
    let (mut reader, mut writer, far) = split();
    reader.set_nonblocking(true).unwrap();
    assert_fails(reader.read(&mut [0]), ErrorKind::WouldBlock);
    let writing = Call::start(move || writer.write(&[0; 1 << 20])).unwrap();
    // It waits after its first bytes. It may sleep before that for memory.
    wait_ready(far.as_raw_fd(), PollInterest::Read, soon()).unwrap();
    writing.asleep(soon()).unwrap();
    assert_fails(reader.read(&mut [0]), ErrorKind::WouldBlock);
    drop(far);
    assert!(writing.finish(soon()).unwrap().unwrap() >= 256 * 1024);
}

#[test]
fn a_dropped_reader_ends_only_the_peers_writing() {
    type Leave = fn(VsockInnerReader);
    let ways: [(&[u8], Leave, ErrorKind); 4] = [
        (b"", drop, ErrorKind::BrokenPipe),
        (b"unread", drop, ErrorKind::ConnectionReset),
        (b"", VsockInnerReader::abort, ErrorKind::ConnectionReset),
        (b"", drop_by_panic, ErrorKind::ConnectionReset),
    ];
    for (unread, leave, kind) in ways {
        let (reader, mut writer, mut far) = split();
        far.write_all(unread).unwrap();
        leave(reader);
        assert_fails(far.write(b"x"), kind);
        writer.write_all(b"still").unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 5);
        assert_fails(far.read(&mut [0; 8]), ErrorKind::WouldBlock);
        assert!(!far.peer_gone());
    }
}

#[test]
fn a_dropped_writer_ends_only_the_peers_reading_after_queued_bytes() {
    type Leave = fn(VsockInnerWriter);
    let ways: [(Leave, Result<usize, ErrorKind>); 4] = [
        (drop, Ok(0)),
        (VsockInnerWriter::abort, Err(ErrorKind::ConnectionReset)),
        (drop_by_panic, Err(ErrorKind::ConnectionReset)),
        (
            |mut writer| {
                writer.shutdown().unwrap();
                writer.abort(); // it had already ended
            },
            Ok(0),
        ),
    ];
    for (leave, end) in ways {
        let (mut reader, mut writer, mut far) = split();
        writer.write_all(b"last").unwrap();
        leave(writer);
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 4);
        assert_eq!(far.read(&mut [0; 8]).map_err(|error| error.kind()), end);
        far.write_all(b"still").unwrap();
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 5);
        assert!(!far.peer_gone());
    }
}

#[test]
fn a_dropped_reader_with_unread_bytes_resets_only_the_peers_writing() {
    for writer_first in [false, true] {
        let (reader, mut writer, mut far) = split();
        far.write_all(b"unread").unwrap();
        if writer_first {
            writer.shutdown().unwrap();
            drop(writer);
            drop(reader);
        } else {
            drop(reader);
            drop(writer);
        }
        assert_fails(far.write(b"x"), ErrorKind::ConnectionReset);
        assert_eq!(
            far.read(&mut [0; 8]).unwrap(),
            0,
            "the reset is not reported to the reader"
        );
    }
}

/// Drops a value while a panic unwinds.
fn drop_by_panic<T>(held: T) {
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _dropped = held;
        resume_unwind(Box::new("a panic that holds a half"));
    }));
    drop(unwound);
}

#[test]
fn a_shutdown_before_the_split_still_holds_after_it() {
    let (mut near, mut far) = pair();
    near.shutdown(Shutdown::Write).unwrap();
    let (_reader, writer) = near.into_split();
    drop(writer);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn dropping_the_last_half_is_an_edge_and_makes_the_peer_gone() {
    for reader_first in [true, false] {
        let (mut reader, mut writer, far) = split();
        reader.shutdown().unwrap();
        writer.shutdown().unwrap();
        let mut edges = Watch::edges(far.as_raw_fd(), PollInterest::Read).unwrap();
        edges.now().unwrap();
        let last: Box<dyn Send> = if reader_first {
            drop(reader);
            Box::new(writer)
        } else {
            drop(writer);
            Box::new(reader)
        };
        assert!(!far.peer_gone());
        edges.now().unwrap();
        drop(last);
        assert!(far.peer_gone());
        assert!(edges.now().unwrap().is_some());
    }
}

#[test]
fn a_blocked_half_leaves_the_other_one_free() {
    let (mut reader, mut writer, mut far) = split();
    let reading = waiting(move || reader.read(&mut [0; 8]));
    writer.write_all(b"ping").unwrap();
    assert_eq!(far.read(&mut [0; 8]).unwrap(), 4);
    far.write_all(b"pong").unwrap();
    assert_eq!(reading.finish(soon()).unwrap().unwrap(), 4);
}

#[test]
fn a_split_keeps_the_streams_descriptors() {
    let (near, _far) = pair();
    let (read_fd, write_fd) = (near.as_raw_fd(), near.write_ready_fd().unwrap());
    let (reader, writer) = near.into_split();
    assert_eq!(reader.as_raw_fd(), read_fd);
    assert_eq!(writer.write_ready_fd().unwrap(), write_fd);
}

#[test]
fn each_half_closes_its_own_descriptor() {
    let (reader, writer, _far) = split();
    let read = Watch::level(reader.as_raw_fd(), PollInterest::Read).unwrap();
    let write = Watch::level(writer.write_ready_fd().unwrap(), PollInterest::Write).unwrap();
    drop(writer);
    assert!(read.is_open() && !write.is_open());
    drop(reader);
    assert!(!read.is_open());
}

#[test]
fn s23_queued_bytes_are_counted_at_both_halves() {
    let (reader, mut writer, far) = split();
    writer.write_all(&[0; 100]).unwrap();
    assert_eq!((writer.queued(), far.queued_in()), (100, 100));
    assert_eq!((reader.queued(), far.queued_out()), (0, 0));
}
