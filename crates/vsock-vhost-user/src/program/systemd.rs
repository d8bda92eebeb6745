// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface to a service manager such as systemd: sockets that it passes to the program, and
//! notifications that the program sends to it.

mod handed_over;
mod notify;
mod status;

pub(crate) use self::handed_over::{Guest, HandedOver, HandedOverError, Role};
pub(crate) use self::notify::Manager;
pub(crate) use self::status::StatusLine;
