// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that writes a capture. No other thread waits for the file.

use super::error::CaptureError;
use super::pcapng::STATISTICS_LEN;
use super::queue::Queue;
use super::sink::{Sink, Unwritten, whole_blocks};
use crate::journal::{CAPTURES, say};

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) sink: Sink,
    /// The maximum size of the file in bytes.
    pub(super) limit: u64,
    /// The name of the file in log messages.
    pub(super) name: String,
}

impl Writer {
    /// Writes until the capture is stopped or cannot continue.
    pub(super) fn run(mut self, queue: &Queue) -> Result<(), CaptureError> {
        let result = self.write_all(queue);
        let name = &self.name;
        match &result {
            Ok(()) => {}
            Err(CaptureError::FileLimit(limit)) => say!(
                CAPTURES,
                Warn,
                "the capture {name} has ended: it has reached its limit of {limit} bytes"
            ),
            Err(CaptureError::Write(source)) => say!(
                CAPTURES,
                Error,
                "the capture {name} has ended: cannot write it: {source}"
            ),
            Err(error) => say!(CAPTURES, Error, "the capture {name} has ended: {error}"),
        }
        let sums = queue.sums();
        if sums.dropped > 0 {
            say!(
                CAPTURES,
                Warn,
                "{dropped} of {passed} packets are not in the capture {name}",
                dropped = sums.dropped,
                passed = sums.passed
            );
        }
        queue.set_ended();
        result
    }

    fn write_all(&mut self, queue: &Queue) -> Result<(), CaptureError> {
        let mut batch = Vec::new();
        let mut warned = false;
        loop {
            let taken = queue.exchange(&mut batch);
            if taken.newly_dropped > 0 && !warned {
                warned = true;
                say!(
                    CAPTURES,
                    Warn,
                    "writing the capture {name} is too slow: dropping packets, which it counts",
                    name = self.name
                );
            }
            // Keep room for the statistics at the end.
            let reserved = if taken.is_last { 0 } else { taken.interfaces };
            let reserved = (reserved as u64).saturating_mul(STATISTICS_LEN as u64);
            let room = self
                .limit
                .saturating_sub(reserved)
                .saturating_sub(self.sink.len());
            let fitting = if batch.len() as u64 <= room {
                batch.len()
            } else {
                whole_blocks(&batch, room)
            };
            // Write as many complete blocks as fit. If some do not, the file is full: end with an
            // error after writing the others.
            let (blocks, rest) = batch.split_at(fitting);
            let written = self.sink.write(blocks);
            queue.set_file_bytes(self.sink.len());
            let (lost, error) = match written {
                Ok(()) if !rest.is_empty() => (rest, CaptureError::FileLimit(self.limit)),
                Ok(()) if taken.is_last => return self.sink.flush().map_err(CaptureError::Write),
                Ok(()) => continue,
                Err(Unwritten { written, source }) => (
                    batch.get(written..).unwrap_or_default(),
                    CaptureError::Write(source),
                ),
            };
            let statistics = queue.give_up(lost);
            if self.sink.ends_whole() || matches!(error, CaptureError::FileLimit(_)) {
                // Even on a full disk there is often room in the file's last page. If not, the sink
                // truncates the file again.
                let _told = self.sink.write(&statistics);
                queue.set_file_bytes(self.sink.len());
            }
            return Err(error);
        }
    }
}
