// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Cancelling calls that wait or are about to.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use loom::thread;

use super::{assert_readability, direction, explore};
use crate::canceller::Canceller;
use crate::writer::VsockInnerWriter;

#[test]
fn a_cancellation_ends_a_blocked_read() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let reading = thread::spawn(move || reader.read(&mut [0]).unwrap_err().kind());
        canceller.cancel();
        canceller.cancel();
        assert_eq!(reading.join().unwrap(), ErrorKind::Interrupted);
    });
}

/// A reader whose descriptor has been taken, while another thread runs `act` on its peer and its
/// canceller.
fn read_while(act: fn(&mut VsockInnerWriter, &Canceller)) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.as_raw_fd();
        let canceller = reader.canceller();
        let acting = thread::spawn(move || {
            act(&mut writer, &canceller);
            (writer, canceller)
        });
        let first = reader.read(&mut [0; 4]).map_err(|error| error.kind());
        let (_writer, canceller) = acting.join().unwrap();
        // A call that can make progress does so, cancelled or not.
        if first != Ok(1) {
            assert_eq!(first, Err(ErrorKind::Interrupted));
            assert_eq!(reader.read(&mut [0; 4]).unwrap(), 1);
        }
        canceller.resume();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_cancellation_before_a_write_loses_no_byte_and_no_readiness() {
    read_while(|writer, canceller| {
        canceller.cancel();
        writer.write_all(&[1]).unwrap();
    });
}

#[test]
fn a_cancellation_after_a_write_loses_no_byte_and_no_readiness() {
    read_while(|writer, canceller| {
        writer.write_all(&[1]).unwrap();
        canceller.cancel();
    });
}

#[test]
fn a_cancelled_write_returns_how_much_it_has_written() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let canceller = writer.canceller();
        let writing = thread::spawn(move || {
            let written = writer.write(&[1, 2]).unwrap();
            (written, writer)
        });
        canceller.cancel();
        let mut read = reader.read(&mut [0; 2]).unwrap();
        let (written, _writer) = writing.join().unwrap();
        reader.set_nonblocking(true).unwrap();
        read += reader.read(&mut [0; 2]).unwrap_or(0);
        assert_eq!(read, written);
    });
}

#[test]
fn a_reader_that_was_cancelled_can_still_be_woken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        canceller.cancel();
        let cancelled = reader.read(&mut [0]).unwrap_err().kind();
        assert_eq!(cancelled, ErrorKind::Interrupted);
        canceller.resume();
        let reading = thread::spawn(move || reader.read(&mut [0; 4]).unwrap());
        writer.write_all(&[1]).unwrap();
        assert_eq!(reading.join().unwrap(), 1);
    });
}
