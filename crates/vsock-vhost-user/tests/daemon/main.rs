// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tests the device from the point of view of a front-end and a guest, with shared memory, queues,
//! kicks and calls, but without a virtual machine.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod captures;
mod closing;
mod connect;
mod control;
mod descriptors;
mod drop_in;
mod endings;
mod frontends;
mod guest;
mod held;
mod host;
mod inherited;
mod inspect;
mod lifecycle;
mod logging;
mod messages;
mod migration;
mod monitors;
mod passing;
mod program;
mod regions;
mod requests;
mod ring;
mod routes;
mod service;
mod siblings;
mod stopping;
mod streams;
mod unix;
mod vmm;
