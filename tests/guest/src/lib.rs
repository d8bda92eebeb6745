// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices that are measured and tested beside each other: built or installed, started, and
//! their host's side, whichever it is.

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
