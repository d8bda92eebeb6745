// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What connections cost their process in allocations, descriptors and memory. Each test runs in a
//! process of its own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocations;
mod descriptors;
mod exhaustion;
mod memory;
mod packets;

use std::alloc::System;
use std::fs;
use std::os::fd::AsRawFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Returns how often the work allocates: the least of three runs. An allocation by a call shows in
/// all three, one by the test runner's thread in only one.
fn allocations(mut work: impl FnMut() -> Stats) -> usize {
    let rounds = [(); 3].map(|()| {
        let stats = work();
        stats.allocations + stats.reallocations
    });
    rounds.into_iter().min().unwrap()
}

/// Returns the highest number of an open descriptor.
fn highest_fd() -> u64 {
    let listed = fs::read_dir("/proc/self/fd").unwrap();
    let names: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    // Reading the directory used a descriptor of its own, which is closed by now.
    let open = names
        .iter()
        .filter(|name| fs::symlink_metadata(name).is_ok());
    let numbers = open.filter_map(|name| name.file_name()?.to_str()?.parse().ok());
    numbers.max().unwrap()
}

/// Occupies every free number below the highest open descriptor. The parent process may have left
/// gaps. Dropping the files frees the numbers.
fn fill_gaps() -> Vec<fs::File> {
    let highest = highest_fd();
    let mut files = Vec::new();
    loop {
        let file = fs::File::open("/dev/null").unwrap();
        let above = u64::try_from(file.as_raw_fd()).unwrap() > highest;
        if above {
            return files;
        }
        files.push(file);
    }
}

/// Raises the soft limit on descriptor numbers to `limit`, or as far as allowed.
fn allow_fds(limit: u64) -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // Exceeding the hard limit takes a privilege, which a CI machine may lack.
    if setrlimit(Resource::RLIMIT_NOFILE, limit, hard.max(limit)).is_ok() {
        return limit;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}
