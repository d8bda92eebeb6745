// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What writes the lines: the one thread that may wait for standard error, for ever if need be.

use std::io;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

use super::queue::Queue;

/// Writes the lines of a queue, and how many are missing.
#[derive(Debug, Default)]
pub(super) struct Writer {
    batch: Vec<u8>,
    /// Lines that are lost, and of which standard error could not be told so far.
    missing: u64,
}

impl Writer {
    /// Writes to standard error for as long as the program runs.
    pub(super) fn run(mut self, queue: &Queue) -> ! {
        loop {
            self.write_next(queue, to_standard_error);
        }
    }

    /// Waits for lines, and writes them with `write`, which returns how many it could not write.
    fn write_next(&mut self, queue: &Queue, mut write: impl FnMut(&[u8]) -> u64) {
        let lost = queue.exchange(&mut self.batch);
        self.missing += lost + write(&self.batch);
        if self.missing > 0 {
            let told = format!(
                "vsock-vhost-user: {} lines of the log are missing here, standard error did not take them\n",
                self.missing
            );
            if write(told.as_bytes()) == 0 {
                self.missing = 0;
            }
        }
    }
}

/// Writes all, and returns how many lines could not be written. No lock is taken meanwhile, so
/// others can use standard error.
fn to_standard_error(mut bytes: &[u8]) -> u64 {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match write(&stderr, bytes) {
            Ok(count @ 1..) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Another process that shares the descriptor may have made it non-blocking.
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
    fn t131_lines_that_are_missing_are_told_when_standard_error_takes_some_again() {
        let (queue, mut writer) = (Queue::new(), Writer::default());
        let mut written = Vec::new();
        let mut take = |bytes: &[u8]| {
            written.extend_from_slice(bytes);
            0
        };
        // The last one is longer than there is room for.
        queue.push(b"first\n");
        queue.push(&vec![b'x'; 1 << 20]);
        writer.write_next(&queue, &mut take);
        // Nothing can be written, not even the number of what is lost.
        queue.push(b"second\n");
        writer.write_next(&queue, |_| 1);
        queue.push(b"third\n");
        writer.write_next(&queue, &mut take);
        queue.push(b"fourth\n");
        writer.write_next(&queue, &mut take);
        let told = "lines of the log are missing here, standard error did not take them";
        let expected = format!(
            "first\nvsock-vhost-user: 1 {told}\nthird\nvsock-vhost-user: 1 {told}\nfourth\n"
        );
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }
}
