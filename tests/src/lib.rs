// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the suites share: the transports under test, each as a source of connected pairs.

#![forbid(unsafe_code)]

pub mod alone;
pub mod bare;
pub mod halves;
pub mod inner;
pub mod unix;
