// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The same job with a device and a guest between: connector, muxer, packets, an echo service in the
//! simulated guest, and back; once begun by the host, once by the guest.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use vsock_inner::{VsockInnerBackend, VsockInnerConnector, VsockInnerListener, VsockInnerStream};
use vsock_muxer::MuxerCounters;
use vsock_muxer_harness::guest::GuestConfig;
use vsock_proto::Config;
use vsock_report::{Progress, SystemCallCounter, SystemCallError, receive};

use super::echo::Echo;
use super::rig::Rig;
use crate::transport;

/// The port of the service, on whichever side it is.
const PORT: u32 = 1024;

/// Who begins the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begins {
    /// A component, by `connect_to`; the guest listens.
    Host,
    /// The guest; a component has a listener.
    Guest,
}

impl Begins {
    pub(crate) const ALL: [Self; 2] = [Self::Host, Self::Guest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "muxer, host begins",
            Self::Guest => "muxer, guest begins",
        }
    }
}

/// What a round took, and what passed between device and guest.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    /// System calls of all threads, or why they were not counted.
    pub(crate) calls: Result<u64, String>,
    pub(crate) counters: MuxerCounters,
}

/// Sends `bytes` there and back; returns what came.
pub(crate) fn run(
    begins: Begins,
    bytes: &[u8],
    progress: &Progress,
) -> anyhow::Result<(Outcome, Vec<u8>)> {
    let backend = VsockInnerBackend::new().context("cannot make a backend")?;
    let connector = backend.get_connector();
    let mut rig = Rig::new(Config::default(), GuestConfig::default())?;
    let listener = match begins {
        Begins::Host => {
            rig.guest.listen(PORT, 8)?;
            None
        }
        Begins::Guest => Some(backend.listen(PORT)?),
    };
    rig.add_backend(Box::new(backend))?;
    let mut back = vec![1; bytes.len()];
    let stop = AtomicBool::new(false);
    let (carried, device) = thread::scope(|scope| {
        let device = scope.spawn(|| counted(|| serve(rig, begins, &stop)));
        let result = connect(begins, &connector, listener.as_ref())
            .and_then(|stream| carry(stream, bytes, &mut back, progress));
        // ORDER: Relaxed; partner: the load in `serve`, which only ends sooner or later by it.
        stop.store(true, Ordering::Relaxed);
        let device = device
            .join()
            .map_err(|_| anyhow!("the device's thread has panicked"))?;
        anyhow::Ok((result?, device))
    })?;
    let (time, [sender, receiver]) = carried;
    let (counters, device) = device;
    let counters = counters.context("the device failed")?;
    let calls: Calls = [device, sender, receiver].into_iter().sum();
    let outcome = Outcome {
        time,
        calls: calls.map_err(|error| error.to_string()),
        counters,
    };
    Ok((outcome, back))
}

fn connect(
    begins: Begins,
    connector: &VsockInnerConnector,
    listener: Option<&VsockInnerListener>,
) -> anyhow::Result<VsockInnerStream> {
    match (begins, listener) {
        (Begins::Guest, Some(listener)) => listener.accept().context("nobody has connected"),
        _ => connector
            .connect_to(PORT)
            .context("the guest did not accept"),
    }
}

/// The host component's job, on two threads.
fn carry(
    stream: VsockInnerStream,
    bytes: &[u8],
    back: &mut [u8],
    progress: &Progress,
) -> anyhow::Result<(Duration, [Calls; 2])> {
    let (mut reader, writer) = stream.into_split();
    let start = Instant::now();
    let (received, calls) = thread::scope(|scope| {
        let sender = scope.spawn(|| counted(|| transport::send(Box::new(writer), bytes)));
        let (received, reading) = counted(|| receive(&mut reader, back, progress));
        let (sent, writing) = sender
            .join()
            .map_err(|_| anyhow!("the sender has panicked"))?;
        sent.context("sending failed")?;
        anyhow::Ok((received.context("receiving failed")?, [writing, reading]))
    })?;
    let time = start.elapsed();
    ensure!(
        received == bytes.len(),
        "{received} bytes came back, {} were sent",
        bytes.len()
    );
    Ok((time, calls))
}

/// System calls of a thread.
type Calls = Result<u64, SystemCallError>;

/// Does the work, and counts the system calls of this thread meanwhile.
fn counted<T>(work: impl FnOnce() -> T) -> (T, Calls) {
    let counter = SystemCallCounter::open().and_then(|mut counter| {
        counter.start()?;
        Ok(counter)
    });
    let result = work();
    (result, counter.and_then(|mut counter| counter.stop()))
}

/// The device's thread, with the guest's program.
fn serve(mut rig: Rig, begins: Begins, stop: &AtomicBool) -> io::Result<MuxerCounters> {
    let mut echo = None;
    if begins == Begins::Guest {
        let now = rig.now();
        echo = Some(Echo::new(rig.guest.connect(now, PORT)));
    }
    // ORDER: Relaxed; partner: the store in `run`, which has nothing else to tell.
    while !stop.load(Ordering::Relaxed) {
        rig.turn(Duration::from_millis(20))?;
        if echo.is_none() {
            echo = rig.guest.accept(PORT).map(Echo::new);
        }
        if let Some(echo) = &mut echo {
            echo.serve(&mut rig);
        }
    }
    Ok(rig.counters())
}
