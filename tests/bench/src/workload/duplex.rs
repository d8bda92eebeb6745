// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The jobs of two threads as futures, for `tokio::io::duplex`, which supports nothing else. Each
//! end is driven by its own runtime on its own thread.
//!
//! It has no descriptor and no blocking call, so it is missing from the workloads with epoll.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::sample::{Sample, together};
use crate::transport::{AsyncTransport, Duplex};
use crate::workload::stream;
use crate::workload::tasks::{answer, ask, read_all, write_all};
use vsock_report::Place;

/// Does the job of [`stream::blocking`] with a writer and a reader that await.
pub(crate) fn stream(
    transport: Duplex,
    place: Place,
    size: usize,
    bytes: u64,
) -> io::Result<Sample> {
    let (count, bytes) = stream::messages(size, bytes);
    let (writer, reader) = transport.pair()?;
    let (writing, reading) = (runtime()?, runtime()?);
    together(
        bytes,
        place,
        move || writing.block_on(write_all(writer, size, count)),
        move || reading.block_on(read_all(reader, bytes)),
    )
}

/// Does the job of [`ping_pong::blocking`](crate::workload::ping_pong::blocking) with two ends that
/// await.
pub(crate) fn ping_pong(transport: Duplex, place: Place, rounds: u64) -> io::Result<Sample> {
    let (near, far) = transport.pair()?;
    let (asking, answering) = (runtime()?, runtime()?);
    together(
        rounds,
        place,
        move || asking.block_on(ask(near, rounds)),
        move || answering.block_on(answer(far, rounds)),
    )
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().build()
}
