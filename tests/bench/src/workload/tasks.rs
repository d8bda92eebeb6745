// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same jobs as tasks on a tokio runtime.

use std::future::Future;
use std::hint::black_box;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::sample::{self, Sample};
use crate::transport::AsyncTransport;
use crate::workload::{ping_pong, stream};

/// The runtime of the tasks. It has all drivers enabled, as usual.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flavour {
    /// `current_thread`: all tasks run on the calling thread.
    OneThread,
    /// `multi_thread`, with two workers.
    TwoThreads,
}

/// Connections that are open at the same time.
pub(crate) const CONNECTIONS: u64 = 1000;

impl Flavour {
    fn runtime(self) -> io::Result<Runtime> {
        match self {
            Self::OneThread => Builder::new_current_thread().enable_all().build(),
            Self::TwoThreads => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(2).enable_all().build()
            }
        }
    }

    /// Runs `work` on a new runtime, and measures its cost.
    fn run(self, units: u64, work: impl Future<Output = io::Result<()>>) -> io::Result<Sample> {
        let runtime = self.runtime()?;
        match self {
            Self::OneThread => sample::alone(units, || runtime.block_on(work)),
            Self::TwoThreads => sample::of_process(units, || runtime.block_on(work)),
        }
    }
}

/// Measures a stream from one task to another.
pub(crate) fn stream<T: AsyncTransport>(
    transport: T,
    flavour: Flavour,
    size: usize,
    bytes: u64,
) -> io::Result<Sample> {
    let (count, bytes) = stream::messages(size, bytes);
    flavour.run(bytes, async move {
        let (writer, reader) = transport.pair()?;
        let writing = tokio::spawn(write_all(writer, size, count));
        let reading = tokio::spawn(read_all(reader, bytes));
        let _writer = writing.await??;
        let _reader = reading.await??;
        Ok(())
    })
}

/// Measures round trips between two tasks.
pub(crate) fn ping_pong<T: AsyncTransport>(
    transport: T,
    flavour: Flavour,
    rounds: u64,
) -> io::Result<Sample> {
    flavour.run(rounds, async move {
        let (near, far) = transport.pair()?;
        let asking = tokio::spawn(ask(near, rounds));
        let answering = tokio::spawn(answer(far, rounds));
        let _near = asking.await??;
        let _far = answering.await??;
        Ok(())
    })
}

/// Opens [`CONNECTIONS`] connections at a time, each with two tasks, one request and one answer.
pub(crate) fn connections<T: AsyncTransport>(
    transport: T,
    flavour: Flavour,
    requests: u64,
) -> io::Result<Sample> {
    let rounds = requests.div_ceil(CONNECTIONS).max(1);
    flavour.run(rounds * CONNECTIONS, async move {
        for _ in 0..rounds {
            let pairs: Vec<_> = (0..CONNECTIONS)
                .map(|_| transport.pair())
                .collect::<io::Result<_>>()?;
            let mut tasks = JoinSet::new();
            for (near, far) in pairs {
                tasks.spawn(async move { ask(near, 1).await.map(drop) });
                tasks.spawn(async move { answer(far, 1).await.map(drop) });
            }
            while let Some(done) = tasks.join_next().await {
                done??;
            }
        }
        Ok(())
    })
}

pub(crate) async fn write_all<W>(mut writer: W, size: usize, count: u64) -> io::Result<W>
where
    W: AsyncWrite + Unpin,
{
    let message = vec![0x5a; size];
    for _ in 0..count {
        writer.write_all(black_box(&message)).await?;
    }
    Ok(writer)
}

pub(crate) async fn read_all<R>(mut reader: R, mut bytes: u64) -> io::Result<R>
where
    R: AsyncRead + Unpin,
{
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

pub(crate) async fn ask<S>(mut stream: S, rounds: u64) -> io::Result<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = [0x5a; ping_pong::SIZE];
    let mut reply = [0; ping_pong::SIZE];
    for _ in 0..rounds {
        stream.write_all(black_box(&request)).await?;
        stream.read_exact(&mut reply).await?;
        black_box(&mut reply);
    }
    Ok(stream)
}

pub(crate) async fn answer<S>(mut stream: S, rounds: u64) -> io::Result<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = [0; ping_pong::SIZE];
    for _ in 0..rounds {
        stream.read_exact(&mut message).await?;
        stream.write_all(black_box(&message)).await?;
    }
    Ok(stream)
}
