// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files and ports that the program may use (Landlock).
//!
//! What was opened before stays open: sockets that listen, the connection to the service manager,
//! standard error. The kernel does not confine connections to Unix sockets by their path, which the
//! device makes to `UDS_PATH_PORT` and to the targets of `--forward`: the permissions of these
//! files do.

use std::fs;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope, make_bitflags,
};

use super::kind::ThreadKind;
use super::needs::Needs;

/// The newest version whose rights this program knows and is tested with (Linux 6.15).
const VERSION: ABI = ABI::V7;

/// What removing a socket takes: the lock of its directory, and its name.
const REMOVE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir | RemoveFile});

/// What opening the other end of a FIFO takes, which may be anywhere.
const OPEN_AGAIN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile});

/// Everything is forbidden to a thread of this kind but this.
pub(super) fn ruleset(needs: &Needs, kind: ThreadKind) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    let directories = needs.directories.iter().map(|path| (path, REMOVE));
    let read = needs
        .read
        .iter()
        .map(|path| (path, AccessFs::ReadFile.into()));
    let anywhere = match kind {
        ThreadKind::Passed => anywhere(),
        _ => Vec::new(),
    };
    let anywhere = anywhere.iter().map(|path| (path, OPEN_AGAIN));
    for (path, rights) in directories.chain(read).chain(anywhere) {
        // What is not there cannot be used: a socket that cannot be made for want of its directory
        // ends the program with a better word.
        if let Ok(file) = PathFd::new(path) {
            ruleset = ruleset.add_rule(PathBeneath::new(file, rights))?;
        }
    }
    #[cfg(coverage)]
    if let Some(file) = needs
        .profile
        .as_ref()
        .and_then(|path| PathFd::new(path).ok())
    {
        ruleset = ruleset.add_rule(PathBeneath::new(file, AccessFs::from_all(VERSION)))?;
    }
    for port in &needs.connect_tcp {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset)
}

/// Where a FIFO may be: not where the kernel shows processes and devices.
fn anywhere() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/") else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let kernel = ["/proc", "/sys", "/dev"].map(PathBuf::from);
    paths.filter(|path| !kernel.contains(path)).collect()
}

/// What the kernel does not confine, by what it has done for a thread.
pub(super) fn missing(status: &RestrictionStatus) -> Option<String> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            let missing = beyond(effective_abi)?;
            Some(format!("the kernel's Landlock does not confine {missing}"))
        }
        LandlockStatus::NotEnabled => Some(
            "files and ports are not confined: Landlock is not enabled (add landlock to the kernel's lsm=)"
                .to_owned(),
        ),
        LandlockStatus::NotImplemented => Some(
            "files and ports are not confined: the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK)"
                .to_owned(),
        ),
    }
}

/// What a version of the kernel's interface does not have.
fn beyond(version: ABI) -> Option<&'static str> {
    if version < ABI::V4 {
        Some("ports of TCP (Linux 6.7), abstract sockets and signals (Linux 6.12)")
    } else if version < ABI::V6 {
        Some("abstract sockets and signals (Linux 6.12)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_lacks_what_came_later() {
        assert!(beyond(ABI::V1).unwrap().contains("TCP"));
        assert!(!beyond(ABI::V5).unwrap().contains("TCP"));
        assert_eq!(beyond(ABI::V6), None);
    }
}
