// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::{Add, Sub};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::thread::duration;

/// What this process has used since it began, or in some time.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Usage {
    /// The time of its threads on a core.
    pub cpu: Duration,
    /// How often a thread gave up its core.
    pub switches: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(more.cpu),
            switches: self.switches.saturating_add(more.switches),
        }
    }
}

/// What this process has used since it began.
///
/// # Errors
///
/// What `getrusage` returns.
pub fn usage() -> io::Result<Usage> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let switches = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Ok(Usage {
        cpu: duration(usage.user_time()) + duration(usage.system_time()),
        switches: u64::try_from(switches).unwrap_or(0),
    })
}

/// Bytes of this process that are in memory now (`VmRSS`).
///
/// Memory that the kernel keeps on behalf of the process, such as its sockets, is not in it.
///
/// # Errors
///
/// `/proc` cannot be read or does not say it.
pub fn resident_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let missing = || {
        io::Error::new(
            ErrorKind::InvalidData,
            "expected a line VmRSS in kB in /proc/self/status",
        )
    };
    resident_in(&text).ok_or_else(missing)
}

/// Descriptors that this process has open now.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn open_descriptors() -> io::Result<u64> {
    let listed = fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok(listed.saturating_sub(1)) // one of them reads the directory
}

fn resident_in(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::hint::black_box;

    use super::{open_descriptors, resident_bytes, resident_in};

    #[test]
    fn the_resident_size_is_read_in_kib() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n";
        assert_eq!(resident_in(status), Some(2 << 20));
        assert_eq!(resident_in("VmRSS:\t2048 MB\n"), None);
        assert_eq!(resident_in("Name:\tx\n"), None);
    }

    #[test]
    fn touched_memory_shows() {
        let before = resident_bytes().unwrap();
        let block = black_box(vec![1_u8; 64 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after - before > 60 << 20, "{before} -> {after}");
        drop(block);
    }

    #[test]
    fn an_open_file_is_one_more_descriptor() {
        let files: Vec<File> = (0..50).map(|_| File::open("/dev/null").unwrap()).collect();
        let with = open_descriptors().unwrap();
        drop(files);
        let without = open_descriptors().unwrap();
        // Other tests of this process open and close a few of their own meanwhile.
        assert!((40..=60).contains(&(with - without)), "{without} -> {with}");
    }
}
