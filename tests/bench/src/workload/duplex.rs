// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same jobs as futures, for the row that knows nothing else.

use std::hint::black_box;
use std::io;

use tokio::io::{self as tokio_io, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, Runtime};

use crate::sample::{Sample, together};
use crate::workload::{ping_pong, stream};
use vsock_report::Place;

/// `tokio::io::duplex`, each end driven by a runtime of its own on a thread of its own.
///
/// It has no descriptor and no blocking call, so it takes part where a future can do the job.
pub(crate) struct Duplex {
    /// Bytes that each direction holds.
    pub(crate) capacity: usize,
}

impl Duplex {
    /// Makes a connected pair of ends.
    pub(crate) fn pair(&self) -> (DuplexStream, DuplexStream) {
        tokio_io::duplex(self.capacity)
    }
}

/// [`stream::blocking`] with an awaiting writer and an awaiting reader.
pub(crate) fn stream(
    transport: &Duplex,
    place: Place,
    size: usize,
    bytes: u64,
) -> io::Result<Sample> {
    let (count, bytes) = stream::messages(size, bytes);
    let (writer, reader) = transport.pair();
    let (writing, reading) = (runtime()?, runtime()?);
    together(
        bytes,
        place,
        move || writing.block_on(write_all(writer, size, count)),
        move || reading.block_on(read_all(reader, bytes)),
    )
}

/// [`ping_pong::blocking`] with two awaiting ends.
pub(crate) fn ping_pong(transport: &Duplex, place: Place, rounds: u64) -> io::Result<Sample> {
    let (near, far) = transport.pair();
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

async fn write_all(mut writer: DuplexStream, size: usize, count: u64) -> io::Result<DuplexStream> {
    let message = vec![0x5a; size];
    for _ in 0..count {
        writer.write_all(black_box(&message)).await?;
    }
    Ok(writer)
}

async fn read_all(mut reader: DuplexStream, mut bytes: u64) -> io::Result<DuplexStream> {
    let mut buf = vec![0; stream::READ_SIZE];
    while bytes > 0 {
        let got = reader.read(&mut buf).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        black_box(&mut buf[..got]);
        bytes -= got as u64;
    }
    Ok(reader)
}

async fn ask(mut stream: DuplexStream, rounds: u64) -> io::Result<DuplexStream> {
    let request = [0x5a; ping_pong::SIZE];
    let mut reply = [0; ping_pong::SIZE];
    for _ in 0..rounds {
        stream.write_all(black_box(&request)).await?;
        stream.read_exact(&mut reply).await?;
        black_box(&mut reply);
    }
    Ok(stream)
}

async fn answer(mut stream: DuplexStream, rounds: u64) -> io::Result<DuplexStream> {
    let mut message = [0; ping_pong::SIZE];
    for _ in 0..rounds {
        stream.read_exact(&mut message).await?;
        stream.write_all(black_box(&message)).await?;
    }
    Ok(stream)
}
