// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data and space, concurrent with the side that sleeps until they arrive.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use loom::thread;
use vsock_backend_api::VsockStream;

use super::{direction, explore, pair, read_all};
use crate::reader::VsockInnerReader;

#[test]
fn a_blocked_reader_misses_no_byte_and_no_end() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || read_all(&mut reader));
        writer.write_all(&[1, 2, 3]).unwrap();
        writer.shutdown().unwrap();
        assert_eq!(reading.join().unwrap(), (vec![1, 2, 3], None));
    });
}

#[test]
fn a_blocked_reader_wakes_for_each_of_two_writes() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let reading = thread::spawn(move || {
            let mut two = [0; 2];
            reader.read_exact(&mut two).unwrap();
            two
        });
        writer.write_all(&[1]).unwrap();
        writer.write_all(&[2]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2]);
    });
}

#[test]
fn a_blocked_writer_misses_no_space() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        let writing = thread::spawn(move || writer.write(&[1, 2]).unwrap());
        let mut two = [0; 2];
        reader.read_exact(&mut two).unwrap();
        assert_eq!((two, writing.join().unwrap()), ([1, 2], 2));
    });
}

#[test]
fn a_blocked_writer_waits_for_its_share_of_the_capacity() {
    // After a refused write at a capacity of eight, two bytes must be free.
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        writer.write_all(&[0; 8]).unwrap();
        let writing = thread::spawn(move || writer.write(&[1]).unwrap());
        reader.read_exact(&mut [0]).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        assert_eq!(writing.join().unwrap(), 1);
    });
}

/// Reads six bytes in the given way, while the writer reuses its blocks.
fn go_round(read: fn(&mut VsockInnerReader, &mut [u8; 6])) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(4);
        writer.write_all(&[1, 2]).unwrap();
        let reading = thread::spawn(move || {
            let mut bytes = [0; 6];
            read(&mut reader, &mut bytes);
            bytes
        });
        writer.write_all(&[3, 4]).unwrap();
        writer.write_all(&[5, 6]).unwrap();
        assert_eq!(reading.join().unwrap(), [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn the_queue_reuses_its_blocks_without_a_race() {
    go_round(|reader, bytes| {
        reader.set_nonblocking(true).unwrap();
        let first = reader.read(&mut bytes[..3]).unwrap();
        reader.set_nonblocking(false).unwrap();
        reader.read_exact(&mut bytes[first..]).unwrap();
    });
}

/// Like a read into guest memory: first copies across block boundaries, then consumes.
#[test]
fn viewed_bytes_are_those_consumed_while_the_writer_reuses_blocks() {
    go_round(|reader, bytes| {
        let mut shown = [0; 4];
        let there = reader.peek(&mut shown).unwrap();
        reader.read_exact(&mut bytes[..there]).unwrap();
        assert_eq!(shown[..there], bytes[..there]);
        reader.read_exact(&mut bytes[there..]).unwrap();
    });
}

#[test]
fn a_change_of_mode_does_not_affect_the_peer() {
    explore(|| {
        let (mut near, mut far) = pair(8);
        far.as_raw_fd();
        let writing = thread::spawn(move || {
            near.set_nonblocking(true).unwrap();
            near.write_all(&[1]).unwrap();
            near.set_nonblocking(false).unwrap();
            near.write_all(&[2]).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
            near
        });
        let mut all = Vec::new();
        far.set_nonblocking(true).unwrap();
        let mut buf = [0; 4];
        if let Ok(n) = far.read(&mut buf) {
            all.extend_from_slice(&buf[..n]);
        }
        far.set_nonblocking(false).unwrap();
        all.extend(read_all(&mut far).0);
        let _near = writing.join().unwrap();
        assert_eq!(all, [1, 2]);
    });
}
