// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first program of the guest, and what it shares with the host: the jobs, the byte patterns by
//! which both recognise what they sent, and the code that sends and receives them.

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
