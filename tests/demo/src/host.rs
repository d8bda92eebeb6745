// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host component: one thread writes the file, another reads it back.

use std::io::{self, Read};

use crate::progress::Progress;
use crate::transport::HostWriter;

/// How much is written or read at once.
const PIECE: usize = 64 * 1024;

/// Writes all of `bytes`, and ends the direction.
pub(crate) fn send(mut writer: Box<dyn HostWriter>, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        writer.write_all(piece)?;
    }
    writer.finish()
}

/// Reads into `back` up to the end; returns how many bytes came, which may be more than fit.
pub(crate) fn receive(
    mut reader: Box<dyn Read + Send>,
    back: &mut [u8],
    progress: &Progress,
) -> io::Result<usize> {
    let mut received = 0;
    let mut excess = [0; 1];
    loop {
        let end = (received + PIECE).min(back.len());
        let place = if received < back.len() {
            &mut back[received..end]
        } else {
            &mut excess
        };
        match reader.read(place)? {
            0 => return Ok(received),
            read => {
                received += read;
                progress.advance(read as u64);
            }
        }
    }
}
