// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the figures were measured on.

use std::fs;

use vsock_meter::SystemCallCounter;

/// The processor, by the name it gives itself.
#[must_use]
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'));
    name.map_or_else(
        || "unknown processor".to_owned(),
        |(_, n)| n.trim().to_owned(),
    )
}

/// The kernel's release.
#[must_use]
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "unknown kernel".to_owned(),
        |release| format!("Linux {}", release.trim()),
    )
}

/// How system calls are counted here, or why they are not.
#[must_use]
pub fn counting() -> String {
    match SystemCallCounter::open() {
        Ok(_) => "counted by the kernel, tracepoint raw_syscalls:sys_enter".to_owned(),
        Err(why) => format!("not counted: {why}"),
    }
}
