// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tasks whose waits are cancelled.

use std::io::{ErrorKind, Write};

use loom::thread;

use super::{Executor, poll_once, run};
use crate::loom_model::{direction, explore};

#[test]
fn a_cancellation_ends_the_wait_of_a_task() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let reading = thread::spawn(move || run(|cx| reader.poll_read(cx, &mut [0])));
        canceller.cancel();
        let ended = reading.join().unwrap().unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Interrupted);
    });
}

#[test]
fn a_resumed_cancellation_still_ends_the_wait_of_a_task() {
    explore(|| {
        let (_writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let executor = Executor::new();
        assert!(poll_once(&executor, &mut reader).is_pending());
        let cancelling = thread::spawn(move || {
            canceller.cancel();
            canceller.resume();
        });
        let ended = executor.run(|cx| reader.poll_read(cx, &mut [0]));
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
        cancelling.join().unwrap();
    });
}

#[test]
fn a_cancelled_task_loses_no_byte_and_no_wake_up() {
    explore(|| {
        let (mut writer, mut reader, _rest) = direction(8);
        let canceller = reader.canceller();
        let acting = thread::spawn(move || {
            canceller.cancel();
            canceller.resume();
            writer.write_all(&[1]).unwrap();
            writer
        });
        let first = run(|cx| reader.poll_read(cx, &mut [0; 4]));
        let _writer = acting.join().unwrap();
        match first {
            Ok(read) => assert_eq!(read, 1),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Interrupted);
                let second = run(|cx| reader.poll_read(cx, &mut [0; 4]));
                assert_eq!(second.unwrap(), 1);
            }
        }
    });
}
