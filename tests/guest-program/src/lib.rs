// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host and the program in the guest have in common: the jobs that one gives the other, the bytes
//! by which both recognise what they have sent, and how they send them.

#![forbid(unsafe_code)]

pub mod job;
pub mod pattern;
pub mod transfer;
