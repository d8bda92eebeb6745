// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The thread that writes a capture. No other thread waits for the file.

use super::error::CaptureError;
use super::pcapng::STATISTICS_LEN;
use super::queue::Queue;
use super::sink::{Sink, Unwritten, whole_blocks};

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
        match &result {
            Ok(()) => {}
            Err(CaptureError::FileLimit(limit)) => log::warn!(
                "the capture {} has ended: it has reached its limit of {limit} bytes",
                self.name
            ),
            Err(CaptureError::Write(source)) => log::error!(
                "the capture {} has ended: cannot write it: {source}",
                self.name
            ),
            Err(error) => log::error!("the capture {} has ended: {error}", self.name),
        }
        let sums = queue.sums();
        if sums.dropped > 0 {
            log::warn!(
                "{} of {} packets are not in the capture {}",
                sums.dropped,
                sums.passed,
                self.name
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
                log::warn!(
                    "writing the capture {} is too slow: dropping packets, which it counts",
                    self.name
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
