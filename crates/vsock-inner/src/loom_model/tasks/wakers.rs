// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wakers that are left, replaced, abandoned and dropped, also together with threads and
//! descriptors.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::task::Poll;

use loom::thread;

use super::{Executor, poll_once, run};
use crate::loom_model::{assert_readability, assert_writability, direction, explore};
use crate::reader::VsockInnerReader;

#[test]
fn a_waker_that_replaces_another_is_woken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let first = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let read = match poll_once(&first, &mut reader) {
            Poll::Ready(read) => read,
            Poll::Pending => run(|cx| reader.poll_read(cx, &mut [0; 4])).unwrap(),
        };
        assert_eq!(read, 1);
        let _writer = writing.join().unwrap();
        assert_eq!(Arc::strong_count(&first), 1, "it was woken or dropped");
    });
}

#[test]
fn a_waker_that_is_left_again_is_kept_and_woken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let mut read = poll_once(&executor, &mut reader);
        if read.is_pending() {
            read = poll_once(&executor, &mut reader);
        }
        if read.is_pending() {
            let again = executor.run(|cx| reader.poll_read(cx, &mut [0; 4]));
            read = again.map(Poll::Ready).unwrap();
        }
        assert_eq!(read, Poll::Ready(1));
        let _writer = writing.join().unwrap();
    });
}

/// The future is dropped, and the thread continues in another way. All waits must be woken.
fn continue_by(way: fn(&mut VsockInnerReader)) {
    explore(move || {
        let (mut writer, mut reader, _rest) = direction(8);
        let dropped = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        if poll_once(&dropped, &mut reader).is_pending() {
            way(&mut reader);
        }
        let _writer = writing.join().unwrap();
        reader.as_raw_fd();
        assert_readability(&mut reader);
        drop(reader);
        assert_eq!(Arc::strong_count(&dropped), 1, "a waker was leaked");
    });
}

#[test]
fn a_thread_that_blocks_after_a_task_has_waited_is_woken() {
    continue_by(|reader| assert_eq!(reader.read(&mut [0; 4]).unwrap(), 1));
}

#[test]
fn a_descriptor_polled_after_a_task_has_waited_is_right() {
    continue_by(|reader| {
        reader.as_raw_fd();
        reader.set_nonblocking(true).unwrap();
        drop(reader.read(&mut [0; 4]));
    });
}

#[test]
fn a_task_waits_after_the_descriptor_was_taken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        reader.as_raw_fd();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        assert_eq!(
            run(|cx| reader.poll_read(cx, &mut [0; 4])).unwrap(),
            1,
            "one byte"
        );
        let _writer = writing.join().unwrap();
        assert_readability(&mut reader);
    });
}

#[test]
fn a_task_that_writes_waits_after_the_descriptor_was_taken() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(1);
        writer.write_ready_fd().unwrap();
        writer.write_all(&[1]).unwrap();
        let reading = thread::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        run(|cx| writer.poll_write(cx, &[2])).unwrap();
        let _reader = reading.join().unwrap();
        assert_writability(&mut writer);
    });
}

#[test]
fn a_dropped_half_keeps_no_waker_whatever_is_in_flight() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let left = poll_once(&executor, &mut reader);
        assert!(left.is_pending());
        let writing = thread::spawn(move || {
            drop(writer.write(&[1]));
            writer
        });
        drop(reader);
        let _writer = writing.join().unwrap();
        assert_eq!(Arc::strong_count(&executor), 1, "a waker was leaked");
    });
}

#[test]
fn a_task_is_woken_exactly_if_data_has_arrived() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let executor = Executor::new();
        let writing = thread::spawn(move || {
            writer.write_all(&[1]).unwrap();
            writer
        });
        let left = poll_once(&executor, &mut reader).is_pending();
        let _writer = writing.join().unwrap();
        assert_eq!(executor.is_woken(), left);
    });
}
