// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::io::{self, PipeReader, PipeWriter, Read, Write};

use crate::transport::Transport;

/// Two pipes, one per direction, with the 64 KiB that the kernel gives by default.
pub(crate) struct Pipe;

/// One end of two pipes.
pub(crate) struct PipeEnd {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Transport for Pipe {
    type End = PipeEnd;

    fn pair(&self) -> io::Result<(PipeEnd, PipeEnd)> {
        let (near, to_near) = io::pipe()?;
        let (far, to_far) = io::pipe()?;
        let here = PipeEnd {
            reader: near,
            writer: to_far,
        };
        let there = PipeEnd {
            reader: far,
            writer: to_near,
        };
        Ok((here, there))
    }
}

impl Read for PipeEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buf)
    }
}

impl Write for PipeEnd {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
