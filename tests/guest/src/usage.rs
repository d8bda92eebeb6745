// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The processor time, memory and descriptors that a device has used, as the kernel counts them.

use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

/// Totals over a device's threads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Usage {
    /// Processor time in seconds, to the nanosecond.
    pub cpu: f64,
    /// Time in user mode in seconds, to the clock tick of 10 ms.
    pub user: f64,
    /// Time in the kernel in seconds, to the clock tick of 10 ms.
    pub system: f64,
    /// Context switches, voluntary and involuntary.
    pub switches: f64,
}

impl Usage {
    /// Returns the total over the running threads of a process whose names `counts` accepts.
    pub fn of_threads(process: u32, counts: impl Fn(&str) -> bool) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        let directory = format!("/proc/{process}/task");
        for task in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
            let task = task?.path();
            // A thread may end while its files are being read.
            let Ok(name) = fs::read_to_string(task.join("comm")) else {
                continue;
            };
            if counts(name.trim()) {
                if let Some(usage) = Self::of_thread(&task) {
                    sum.cpu += usage.cpu;
                    sum.user += usage.user;
                    sum.system += usage.system;
                    sum.switches += usage.switches;
                }
            }
        }
        Ok(sum)
    }

    /// Returns the total for this process, including threads that have ended.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let seconds = |time: TimeVal| time.num_microseconds() as f64 / 1e6;
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        Ok(Self {
            cpu: cpu.num_nanoseconds() as f64 / 1e9,
            user: seconds(usage.user_time()),
            system: seconds(usage.system_time()),
            switches: (usage.voluntary_context_switches() + usage.involuntary_context_switches())
                as f64,
        })
    }

    fn of_thread(task: &Path) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(task.join(name)).ok();
        let (user, system) = ticks(&read("stat")?)?;
        let status = read("status")?;
        let nanos: u64 = read("schedstat")?.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            cpu: Duration::from_nanos(nanos).as_secs_f64(),
            user,
            system,
            switches: field(&status, "voluntary_ctxt_switches:")?
                + field(&status, "nonvoluntary_ctxt_switches:")?,
        })
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu - earlier.cpu,
            user: self.user - earlier.user,
            system: self.system - earlier.system,
            switches: self.switches - earlier.switches,
        }
    }
}

/// Returns the memory that belongs to the process alone, which excludes the guest memory that it
/// shares with QEMU.
pub fn anonymous_bytes(process: u32) -> anyhow::Result<u64> {
    let file = format!("/proc/{process}/smaps_rollup");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
    let kib: u64 = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok())
        .with_context(|| format!("{file} has no line Anonymous"))?;
    Ok(kib * 1024)
}

/// Returns how many descriptors the process has open.
pub fn descriptors(process: u32) -> anyhow::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// Reads fields 14 and 15 of `stat`, in seconds. The name before them can contain any character.
fn ticks(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace().skip(11);
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
    let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / per_second);
    Some((seconds()?, seconds()?))
}

fn field(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::{Usage, anonymous_bytes, field, ticks};

    #[test]
    fn brackets_in_a_thread_name_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(ticks(stat), Some((2.5, 0.5)));
    }

    #[test]
    fn a_line_of_status_is_found_by_its_whole_name() {
        let status = "voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(5.0));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(7.0));
    }

    #[test]
    fn work_and_memory_are_counted() {
        let us = std::process::id();
        let (before, memory) = (
            Usage::of_threads(us, |_| true).unwrap(),
            anonymous_bytes(us).unwrap(),
        );
        let block = black_box(vec![1_u8; 64 << 20]);
        let after = Usage::of_threads(us, |_| true).unwrap();
        assert!((after - before).cpu > 0.001);
        assert!(anonymous_bytes(us).unwrap() - memory > 60 << 20);
        drop(block);
    }
}
