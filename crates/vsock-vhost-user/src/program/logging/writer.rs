// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that writes the log, the only one that can block on standard error.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

use super::queue::Queue;
use crate::program::counted::counted;

/// Writes the lines of a queue, with a note in place of missing lines.
#[derive(Debug, Default)]
pub(super) struct Writer {
    batch: Vec<u8>,
    /// The number of lost lines that have not been reported yet.
    missing: u64,
}

impl Writer {
    /// Writes to standard error for as long as the program runs.
    pub(super) fn run(mut self, queue: &Queue) -> ! {
        loop {
            self.write_next(queue, to_standard_error);
        }
    }

    /// Waits for lines and writes them. `write` returns how many lines it could not write.
    fn write_next(&mut self, queue: &Queue, mut write: impl FnMut(&[u8]) -> u64) {
        let lost = queue.exchange(&mut self.batch);
        self.missing += lost + write(&self.batch);
        if self.missing > 0 {
            let lines = counted(self.missing, "log line");
            let note = format!(
                "vsock-vhost-user: {lines} dropped here, because standard error was not read\n"
            );
            // If this cannot be written either, the number is reported after a later batch.
            if write(note.as_bytes()) == 0 {
                self.missing = 0;
            }
        }
    }
}

/// Writes all bytes, and returns how many lines could not be written. It holds no lock, so other
/// threads can use standard error at the same time.
fn to_standard_error(mut bytes: &[u8]) -> u64 {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match write(&stderr, bytes) {
            Ok(count @ 1..) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Another process that shares standard error may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
                let _ready = poll(&mut fds, None);
            }
            Ok(0) | Err(_) => break,
        }
    }
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t131_missing_lines_are_reported_once_standard_error_can_be_written() {
        let (queue, mut writer) = (Queue::new(), Writer::default());
        let mut written = Vec::new();
        let mut take = |bytes: &[u8]| {
            written.extend_from_slice(bytes);
            0
        };
        // The second line is longer than the queue.
        queue.push(b"first\n");
        queue.push(&vec![b'x'; 1 << 20]);
        writer.write_next(&queue, &mut take);
        // Neither the line nor the note can be written.
        queue.push(b"second\n");
        writer.write_next(&queue, |_| 1);
        queue.push(b"third\n");
        writer.write_next(&queue, &mut take);
        queue.push(b"fourth\n");
        writer.write_next(&queue, &mut take);
        let note = "vsock-vhost-user: 1 log line dropped here, because standard error was not read";
        let expected = format!("first\n{note}\nthird\n{note}\nfourth\n");
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
