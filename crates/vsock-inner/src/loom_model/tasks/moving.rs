// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks that read and write, concurrent with the other end.

use std::io::{ErrorKind, Read, Write};
use std::task::{Poll, ready};

use loom::thread;

use super::run;
use crate::loom_model::{direction, explore, pair};
use crate::reader::VsockInnerReader;
use crate::writer::VsockInnerWriter;

fn read_two(reader: &mut VsockInnerReader) -> [u8; 2] {
    let (mut two, mut at) = ([0; 2], 0);
    run(|cx| {
        while at < 2 {
            at += ready!(reader.poll_read(cx, &mut two[at..])).unwrap();
        }
        Poll::Ready(())
    });
    two
}

#[test]
fn a_task_that_reads_misses_no_byte() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || read_two(&mut reader));
        writer.write_all(&[1]).unwrap();
        writer.write_all(&[2]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_task_that_writes_misses_no_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let writing = thread::spawn(move || {
            for byte in [1, 2] {
                run(|cx| writer.poll_write(cx, &[byte])).unwrap();
            }
            writer
        });
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        let _writer = writing.join().unwrap();
        assert_eq!(two, [1, 2]);
    });
}

#[test]
fn two_tasks_transfer_bytes_with_a_capacity_of_one() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let reading = thread::spawn(move || read_two(&mut reader));
        for byte in [1, 2] {
            run(|cx| writer.poll_write(cx, &[byte])).unwrap();
        }
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_task_that_was_refused_is_woken_at_its_share_of_the_capacity() {
    // After a refused write at a capacity of eight, two bytes must be free.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.write_all(&[0; 8]).unwrap();
        let writing = thread::spawn(move || run(|cx| writer.poll_write(cx, &[1])).unwrap());
        reader.read_exact(&mut [0]).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(writing.join().unwrap(), 1);
    });
}

/// Checks how a task that reads ends when `end` is run on the peer's writer.
fn end_read(end: fn(VsockInnerWriter), read: Result<usize, ErrorKind>) {
    explore(move || {
        let (writer, mut reader, _rest) = direction(8);
        let ending = thread::spawn(move || end(writer));
        let got = run(|cx| reader.poll_read(cx, &mut [0]));
        assert_eq!(got.map_err(|error| error.kind()), read);
        ending.join().unwrap();
    });
}

#[test]
fn a_task_that_reads_learns_of_the_writers_drop() {
    end_read(drop, Ok(0));
}

#[test]
fn a_task_that_reads_learns_of_an_abort() {
    end_read(VsockInnerWriter::abort, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_task_that_writes_learns_of_the_peers_drop() {
    explore(|| {
        let (mut near, far) = pair(1);
        near.write_all(&[1]).unwrap();
        let dropping = thread::spawn(move || drop(far));
        let refused = loop {
            // What the drop discards makes space, so a byte or two may still be accepted.
            if let Err(refused) = run(|cx| near.poll_write(cx, &[2])) {
                break refused;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionReset);
        dropping.join().unwrap();
    });
}
