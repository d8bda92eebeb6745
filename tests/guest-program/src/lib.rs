// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the first program of the guest does, and what it and the host have in common: the jobs that
//! one gives the other, the bytes by which both recognise what they have sent, and how they send
//! them.

#![expect(clippy::print_stderr, reason = "it is what the guest's console shows")]

mod boot;
mod driver;
pub mod init;
pub mod job;
mod kexec;
mod many;
mod moving;
mod network;
mod option;
pub mod pattern;
mod program;
mod serve;
mod sockets;
pub mod transfer;
