// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every interleaving of two ends that do a few things concurrently.
//!
//! The streams are the ones that ship, built on the models in `sync`. A lost wake-up shows as a
//! deadlock, and a byte that two threads access as a race. A descriptor that does not match the
//! state of the stream shows as a failed assertion, once all threads have stopped.

mod cancelling;
mod closing;
mod connecting;
mod crediting;
mod moving;
mod polling;
mod tasks;

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use crate::config::{Capacity, VsockInnerConfig};
use crate::reader::VsockInnerReader;
use crate::stream::VsockInnerStream;
use crate::writer::VsockInnerWriter;

/// Explores the interleavings with up to four preemptions, or as many as `LOOM_MAX_PREEMPTIONS`
/// specifies. Most of these models complete within a minute even without a limit.
fn explore(execution: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(4);
    builder.check(execution);
}

/// Creates two ends that never spin. With spinning, the checker would only find that polling sees
/// nothing new, and what a thread learns by it would carry over to the next execution.
fn pair(capacity: usize) -> (VsockInnerStream, VsockInnerStream) {
    let config = VsockInnerConfig::default()
        .to_device(Capacity::Bytes(capacity))
        .to_application(Capacity::Bytes(capacity))
        .spin_budget(Duration::ZERO);
    VsockInnerStream::pair_with(&config).unwrap()
}

/// One direction: its writer and its reader, and the other two halves, to be kept alive.
fn direction(capacity: usize) -> (VsockInnerWriter, VsockInnerReader, impl Sized) {
    let (near, far) = pair(capacity);
    let (near_reader, writer) = near.into_split();
    let (reader, far_writer) = far.into_split();
    (writer, reader, (near_reader, far_writer))
}

/// Reads everything up to the end. Returns the bytes and how the stream ended.
fn read_all(reader: &mut impl Read) -> (Vec<u8>, Option<ErrorKind>) {
    let mut all = Vec::new();
    let mut buf = [0; 4];
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return (all, None),
            Ok(n) => all.extend_from_slice(&buf[..n]),
            Err(error) => return (all, Some(error.kind())),
        }
    }
}

/// At rest, the descriptor shows what a read would do.
fn assert_readability(reader: &mut VsockInnerReader) {
    let polls_ready = reader.half.incoming().data.polls_ready();
    reader.set_nonblocking(true).unwrap();
    let blocks = reader
        .peek(&mut [0])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert_eq!(
        polls_ready, !blocks,
        "readable: {polls_ready}, a read blocks: {blocks}"
    );
}

/// At rest, the descriptor shows what a write would do.
fn assert_writability(writer: &mut VsockInnerWriter) {
    let polls_ready = writer.half.outgoing().space.polls_ready();
    writer.set_nonblocking(true).unwrap();
    let blocks = writer
        .write(&[9])
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    assert_eq!(
        polls_ready, !blocks,
        "writable: {polls_ready}, a write blocks: {blocks}"
    );
}
