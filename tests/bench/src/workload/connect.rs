// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that are made, accepted and dropped, one after the other, on one thread.

use std::hint::black_box;
use std::io;
use std::os::fd::AsRawFd;

use crate::sample::{Sample, alone};
use crate::transport::Door;
use crate::workload::wait::Wait;

/// Connect, accept, drop both ends.
pub(crate) fn bare<D: Door>(mut door: D, connections: u64) -> io::Result<Sample> {
    alone(connections, || {
        for _ in 0..connections {
            let near = door.connect()?;
            let far = door.accept()?;
            black_box((&near, &far));
        }
        Ok(())
    })
}

/// The same with an event loop: it learns of each connection from the door's descriptor, and
/// registers the descriptor of each accepted end.
pub(crate) fn with_epoll<D: Door>(mut door: D, connections: u64) -> io::Result<Sample> {
    let events = Wait::readable(door.waiting_fd())?;
    alone(connections, || {
        for _ in 0..connections {
            let near = door.connect()?;
            events.wait()?;
            let far = door.accept()?;
            events.also(far.as_raw_fd())?;
            black_box((&near, &far));
        }
        Ok(())
    })
}
