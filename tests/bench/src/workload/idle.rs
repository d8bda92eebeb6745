// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cost of connections that have carried nothing, in the process that has both ends.

use std::hint::black_box;
use std::io;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use vsock_report::{allow_descriptors, open_descriptors, resident_bytes};

/// Descriptors that the process may need in addition to those of the connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// The most descriptors per connection: those of two pipes.
const DESCRIPTORS_EACH: u64 = 4;

/// The cost of idle connections.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Idle {
    /// How many there were: the requested number, or fewer if the limit of descriptors is lower.
    pub(crate) connections: u64,
    /// How much the resident memory of the process grew.
    pub(crate) resident_bytes: u64,
    /// Their descriptors.
    pub(crate) descriptors: u64,
}

impl Idle {
    /// Returns resident bytes per connection.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.resident_bytes as f64 / self.connections.max(1) as f64
    }

    /// Returns descriptors per connection.
    pub(crate) fn descriptors_each(&self) -> f64 {
        self.descriptors as f64 / self.connections.max(1) as f64
    }
}

/// Opens `connections` connections with `make`, and measures their cost.
///
/// The process must be new: memory that was freed before would hide what is allocated.
pub(crate) fn hold<T>(connections: u64, mut make: impl FnMut() -> io::Result<T>) -> Result<Idle> {
    let wanted = connections * DESCRIPTORS_EACH + SPARE_DESCRIPTORS;
    allow_descriptors(wanted).context("cannot read the limit on open descriptors")?;
    let first = make().context("not even one connection could be made")?;
    let (memory, descriptors) = (resident_bytes()?, open_descriptors()?);
    let mut held = Vec::new();
    for _ in 0..connections {
        match make() {
            Ok(connection) => held.push(connection),
            Err(_) => break, // out of descriptors: there are fewer
        }
    }
    let connections = held.len() as u64;
    drop(black_box(held.pop())); // leaves a descriptor to read /proc with
    let idle = Idle {
        connections: connections.saturating_sub(1),
        resident_bytes: resident_bytes()?.saturating_sub(memory),
        descriptors: open_descriptors()?.saturating_sub(descriptors),
    };
    drop(black_box((first, held)));
    Ok(idle)
}
