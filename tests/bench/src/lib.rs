// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the benches of this repository share: rounds are told, kept, drawn and compared the same way,
//! whatever is measured.

#![forbid(unsafe_code)]

pub mod chart;
pub mod format;
pub mod machine;
pub mod place;
pub mod progress;
pub mod revision;
pub mod stats;
pub mod watchdog;
