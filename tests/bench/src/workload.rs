// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The jobs that the rows do.

pub(crate) mod connect;
pub(crate) mod copies;
pub(crate) mod duplex;
pub(crate) mod event_loop;
pub(crate) mod idle;
pub(crate) mod ping_pong;
pub(crate) mod stream;
pub(crate) mod tasks;
mod wait;
