// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Polled descriptors, concurrent with events that change what they show.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use loom::thread;
use vsock_backend_api::{VsockAddr, VsockStream};

use super::{assert_readability, assert_writability, direction, explore, pair};
use crate::connection::Addresses;
use crate::reader::VsockInnerReader;
use crate::seqpacket::VsockInnerSeqpacket;
use crate::sync::Arc;

/// A polled reader runs `read` while two bytes are written, one by one. Afterwards it must be
/// readable exactly if data is left.
fn read_while_written(read: fn(&mut VsockInnerReader)) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer.write_all(&[2]).unwrap();
            writer
        });
        read(&mut reader);
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_polled_reader_is_readable_exactly_when_data_is_available() {
    read_while_written(|reader| {
        drop(reader.read(&mut [0; 4]));
        drop(reader.read(&mut [0; 4]));
    });
}

#[test]
fn a_reader_that_wakes_itself_is_readable_exactly_when_data_is_available() {
    read_while_written(|reader| {
        // As `look_ahead` does when it has found something.
        let something = reader.peek(&mut [0]).is_ok();
        reader.half.incoming().data.wake();
        assert!(!something || reader.half.incoming().data.polls_ready());
        drop(reader.read(&mut [0; 4]));
        reader.half.incoming().data.wake();
    });
}

#[test]
fn data_after_a_refused_read_makes_an_edge() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let mut edges = reader.half.incoming().data.edges();
        if reader.read(&mut [0; 4]).is_ok() {
            edges = reader.half.incoming().data.edges();
            assert_eq!(
                reader.read(&mut [0]).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
        }
        let _writer = writing.join().unwrap();
        if reader.peek(&mut [0]).is_ok() {
            assert!(
                reader.half.incoming().data.edges() > edges,
                "data without an edge"
            );
        }
    });
}

/// Between guests, a peer that stops reading makes an edge without data.
#[test]
fn data_while_a_read_uses_up_the_peers_stop_makes_an_edge() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        let addr = |cid| VsockAddr { cid, port: 5 };
        near.reader.half.connection.set_addresses(Addresses {
            guest: addr(3),
            host: addr(4),
        });
        near.set_nonblocking(true).unwrap();
        near.as_raw_fd();
        far.shutdown(Shutdown::Read).unwrap();
        let writing = thread::spawn(move || {
            far.write_all(&[1]).unwrap();
            far
        });
        let incoming = Arc::clone(near.reader.half.incoming());
        let edges = incoming.data.edges();
        let refused = near.read(&mut [0; 4]).is_err();
        let _far = writing.join().unwrap();
        assert!(
            !refused || incoming.data.edges() > edges,
            "data without an edge"
        );
    });
}

#[test]
fn space_for_a_refused_message_makes_an_edge() {
    explore(|| {
        let (near, far) = pair(8);
        let outgoing = Arc::clone(near.writer.half.outgoing());
        let (mut near, mut far) = (
            VsockInnerSeqpacket::over(near),
            VsockInnerSeqpacket::over(far),
        );
        near.set_nonblocking(true).unwrap();
        near.write_ready_fd().unwrap();
        // With its word, it leaves some space.
        near.write_all(&[1]).unwrap();
        let reading = thread::spawn(move || {
            assert_eq!(far.read(&mut [0; 4]).unwrap(), 1);
            far
        });
        let edges = outgoing.space.edges();
        let refused = near.write(&[2; 4]).is_err();
        let _far = reading.join().unwrap();
        assert!(
            !refused || outgoing.space.edges() > edges,
            "space without an edge"
        );
    });
}

#[test]
fn a_descriptor_taken_late_is_right_despite_concurrent_events() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        reader.as_raw_fd();
        reader.set_nonblocking(true).unwrap();
        drop(reader.read(&mut [0; 4]));
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_descriptor_taken_late_is_right_despite_the_peers_drop() {
    explore(|| {
        let (writer, mut reader, _rest) = direction(8);
        let dropping = thread::spawn(move || drop(writer));
        reader.as_raw_fd();
        dropping.join().unwrap();
        assert!(reader.half.incoming().data.polls_ready());
        assert_readability(&mut reader);
    });
}

#[test]
fn a_polled_writer_is_writable_exactly_when_there_is_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(2);
        writer.set_nonblocking(true).unwrap();
        writer.write_ready_fd().unwrap();
        writer.write_all(&[1, 2]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        drop(writer.write(&[3]));
        drop(writer.write(&[4, 5]));
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_refused_writer_is_woken_at_its_share() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.set_nonblocking(true).unwrap();
        writer.write_all(&[0; 8]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        writer.write_ready_fd().unwrap();
        drop(writer.write(&[1]));
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_wake_up_in_flight_finds_no_closed_descriptor() {
    // The model's eventfd is freed together with its `ReadyFd`, so a later access is a use after
    // free.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.set_nonblocking(true).unwrap();
        reader.as_raw_fd();
        drop(reader.read(&mut [0]));
        let writing = thread::spawn(move || writer.write(&[1]).is_ok());
        drop(reader);
        writing.join().unwrap();
    });
}

#[test]
fn dropping_the_last_half_makes_an_edge_and_closes_the_end() {
    explore(|| {
        let (near, far) = pair(8);
        let (reader, writer) = near.into_split();
        let (mut far_reader, _far_writer) = far.into_split();
        far_reader.as_raw_fd();
        far_reader.shutdown().unwrap(); // readable from here on
        let edges = far_reader.half.incoming().data.edges();
        let dropping = thread::spawn(move || drop(reader));
        drop(writer);
        dropping.join().unwrap();
        assert!(far_reader.peer_gone());
        assert!(
            far_reader.half.incoming().data.edges() > edges,
            "the peer's drop made no edge"
        );
    });
}

#[test]
fn two_threads_take_the_same_descriptor() {
    explore(|| {
        let (mut writer, reader, _rest) = direction(8);
        let reader = Arc::new(reader);
        let taking = {
            let reader = Arc::clone(&reader);
            thread::spawn(move || reader.as_raw_fd())
        };
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        reader.as_raw_fd();
        taking.join().unwrap();
        let _writer = writing.join().unwrap();
        let mut reader = Arc::try_unwrap(reader).unwrap();
        assert_readability(&mut reader);
        reader.set_nonblocking(true).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 1);
        assert_readability(&mut reader);
    });
}
