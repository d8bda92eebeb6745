// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections that have carried nothing: what each of them costs the process that holds both ends.

use std::hint::black_box;
use std::io;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use vsock_report::{allow_descriptors, open_descriptors, resident_bytes};

/// Descriptors that the process may need beside those of the connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// Descriptors of the greediest row, two pipes.
const DESCRIPTORS_EACH: u64 = 4;

/// What idle connections cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Idle {
    /// How many there were: as many as asked for, or as the limit of descriptors lets be.
    pub(crate) connections: u64,
    /// Resident memory of the process that they added.
    pub(crate) resident_bytes: u64,
    /// Descriptors that they hold.
    pub(crate) descriptors: u64,
}

impl Idle {
    /// Resident bytes per connection.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.resident_bytes as f64 / self.connections.max(1) as f64
    }

    /// Descriptors per connection.
    pub(crate) fn descriptors_each(&self) -> f64 {
        self.descriptors as f64 / self.connections.max(1) as f64
    }
}

/// Makes `connections` with `make`, holds them, and tells what they cost.
///
/// To be called in a process that has done nothing else, or freed memory hides what is taken.
pub(crate) fn hold<T>(connections: u64, mut make: impl FnMut() -> io::Result<T>) -> Result<Idle> {
    let wanted = connections * DESCRIPTORS_EACH + SPARE_DESCRIPTORS;
    allow_descriptors(wanted).context("the limit of open descriptors cannot be told")?;
    let first = make().context("not even one connection could be made")?;
    let (memory, descriptors) = (resident_bytes()?, open_descriptors()?);
    let mut held = Vec::new();
    for _ in 0..connections {
        match make() {
            Ok(connection) => held.push(connection),
            Err(_) => break, // out of descriptors: the count tells
        }
    }
    let connections = held.len() as u64;
    drop(black_box(held.pop())); // to have a descriptor left to read /proc with
    let idle = Idle {
        connections: connections.saturating_sub(1),
        resident_bytes: resident_bytes()?.saturating_sub(memory),
        descriptors: open_descriptors()?.saturating_sub(descriptors),
    };
    drop(black_box((first, held)));
    Ok(idle)
}
