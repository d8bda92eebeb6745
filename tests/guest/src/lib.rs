// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices that the guest suite and the benches run: each is built or installed, started, and
//! reached from the host through one interface, whatever kind it is.

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "errors are of the system, with their context, and end a run"
)]

pub mod child;
pub mod device;
pub mod place;
pub mod tool;
pub mod usage;
