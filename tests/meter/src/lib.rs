// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a job costs its process, measured without disturbing it: for the bench and the demo.
//!
//! | what | from |
//! |---|---|
//! | system calls of a thread | the tracepoint `raw_syscalls:sys_enter`, where the kernel permits it |
//! | system calls of a process | a second run of it under `strace -f -c`, where there is one |
//! | processor time of a thread | `getrusage(RUSAGE_THREAD)` |
//! | context switches of a thread | `getrusage(RUSAGE_THREAD)` |
//! | resident memory, open descriptors | `/proc/self` |
//!
//! What cannot be counted is an error that says why, never a number.

#![forbid(unsafe_code)]

mod process;
mod processor;
mod strace;
mod switches;
mod system_calls;

pub use process::{MemoryError, open_descriptors, resident_bytes};
pub use processor::thread_processor_time;
pub use strace::{StraceError, count_under_strace};
pub use switches::{Switches, thread_switches};
pub use system_calls::{SystemCallCounter, SystemCallError};
