// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Monitoring and controlling a running program: HTTP over a Unix socket, and reports to the log.

mod answers;
mod connection_name;
mod controlled;
mod guests;
mod listing;
mod metrics;
mod report;
mod server;

pub(crate) use self::connection_name::ConnectionName;
pub(crate) use self::controlled::Controlled;
pub(crate) use self::guests::Guests;
#[cfg(test)]
pub(crate) use self::listing::Address;
pub(crate) use self::listing::{Connection, Failure, Listing};
pub(crate) use self::report::Reporter;
pub(crate) use self::server::Control;
