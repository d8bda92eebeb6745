// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a job costs its process, measured without disturbing it: for the bench and the demo.
//!
//! | what | from |
//! |---|---|
//! | system calls of a thread | the tracepoint `raw_syscalls:sys_enter`, where the kernel permits it |
//! | processor time of a thread | `getrusage(RUSAGE_THREAD)` |
//! | context switches of a thread | `getrusage(RUSAGE_THREAD)` |
//! | resident memory, open descriptors | `/proc/self` |
//!
//! What cannot be counted is an error that says why, never a number.

#![forbid(unsafe_code)]

mod process;
mod system_calls;
mod thread;

pub use process::{open_descriptors, resident_bytes};
pub use system_calls::{SystemCallCounter, SystemCallError};
pub use thread::{thread_processor_time, thread_switches};
