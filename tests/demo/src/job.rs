// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One round: connect, send, echo, receive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, anyhow};
use vsock_muxer::MuxerCounters;
use vsock_report::{Payload, Progress, Trip, expect_end, there_and_back};

use crate::way::{Connected, Way};

/// What a round took, and what passed between device and guest, if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) trip: Trip,
    pub(crate) counters: Option<MuxerCounters>,
}

/// Sends the payload to the service and back.
pub(crate) fn run(way: Way, payload: &Payload, progress: &Progress) -> anyhow::Result<Outcome> {
    let Connected {
        mut reader,
        mut writer,
        service,
    } = way.connect().context("cannot connect")?;
    let mut source = payload.open()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let service = scope.spawn(|| service(&stop));
        let trip = there_and_back(&mut *source, &mut *writer, &mut *reader, progress);
        let trip = trip.and_then(|trip| {
            writer.finish().context("cannot end the stream")?;
            expect_end(&mut *reader)?;
            Ok(trip)
        });
        // After a failure too, the service sees the end of its stream.
        drop((writer, reader));
        // ORDER: Relaxed; partner: the load in `service::in_guest`, which only ends sooner or later
        // by it.
        stop.store(true, Ordering::Relaxed);
        let served = service
            .join()
            .map_err(|_| anyhow!("the service panicked"))?;
        Ok(Outcome {
            trip: trip?,
            counters: served.context("the service failed")?,
        })
    })
}
