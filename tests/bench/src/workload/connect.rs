// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that are opened, accepted and dropped, one after another, on one thread.

use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;

use crate::sample::{Sample, alone};
use crate::transport::Endpoint;
use crate::workload::wait::Wait;

/// Connects, accepts, and drops both ends.
pub(crate) fn bare<D: Endpoint>(mut endpoint: D, connections: u64) -> io::Result<Sample> {
    alone(connections, || {
        for _ in 0..connections {
            let near = endpoint.connect()?;
            let far = endpoint.accept()?;
            black_box((&near, &far));
        }
        Ok(())
    })
}

/// Does the same with an event loop, which polls the endpoint's descriptor and registers the
/// descriptor of each accepted end.
pub(crate) fn with_epoll<D: Endpoint>(mut endpoint: D, connections: u64) -> io::Result<Sample> {
    let events = Wait::readable(endpoint.waiting_fd())?;
    alone(connections, || {
        for _ in 0..connections {
            let near = endpoint.connect()?;
            events.wait()?;
            let far = endpoint.accept()?;
            events.also(far.as_raw_fd())?;
            black_box((&near, &far));
        }
        Ok(())
    })
}
