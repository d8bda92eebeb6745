// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A service manager as systemd: the sockets that it hands over, and what it is told.

mod handed_over;
mod notify;
mod status;

pub(crate) use self::handed_over::{Guest, HandedOver, HandedOverError, Role};
pub(crate) use self::notify::Manager;
pub(crate) use self::status::StatusLine;
