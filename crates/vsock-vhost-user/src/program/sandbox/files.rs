// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The files and ports that the program can use (Landlock).
//!
//! Files that are open already stay usable: listening sockets, the connection to the service
//! manager, standard error. Landlock does not restrict connections to Unix sockets by path, such as
//! those to `UDS_PATH_PORT` and to the targets of `--forward`. The permissions of these sockets
//! decide.

use std::fs;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope, make_bitflags,
};

use super::kind::ThreadKind;
use super::needs::Needs;

/// The newest Landlock version that this program uses and is tested with (Linux 6.15).
const VERSION: ABI = ABI::V7;

/// The rights that are needed to lock a socket's directory and to remove the socket.
const REMOVE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir | RemoveFile});

/// The rights that are needed to open the other end of a FIFO, which can be anywhere.
const OPEN_AGAIN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile});

/// Returns the rules for a thread of this kind. They forbid everything that they do not list.
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
        // A missing path needs no rule. If a socket's directory is missing, creating the socket
        // fails with a better error than this could give.
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

/// Returns the directories that can contain a FIFO: all but those in which the kernel exposes
/// processes and devices.
fn anywhere() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/") else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let kernel = ["/proc", "/sys", "/dev"].map(PathBuf::from);
    paths.filter(|path| !kernel.contains(path)).collect()
}

/// Returns a warning about the rules that the kernel did not enforce, if there are any.
pub(super) fn missing(status: &RestrictionStatus) -> Option<String> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            let missing = unsupported(effective_abi)?;
            Some(format!(
                "this kernel's Landlock does not restrict {missing}"
            ))
        }
        LandlockStatus::NotEnabled => Some(
            "access to files and ports is not restricted: Landlock is disabled (add landlock to \
             the kernel's lsm= parameter)"
                .to_owned(),
        ),
        LandlockStatus::NotImplemented => Some(
            "access to files and ports is not restricted: the kernel has no Landlock (needs Linux \
             5.13 and CONFIG_SECURITY_LANDLOCK)"
                .to_owned(),
        ),
    }
}

/// Returns what a version of Landlock cannot restrict.
fn unsupported(version: ABI) -> Option<&'static str> {
    if version < ABI::V4 {
        Some("TCP ports (needs Linux 6.7) or abstract sockets and signals (needs Linux 6.12)")
    } else if version < ABI::V6 {
        Some("abstract sockets and signals (needs Linux 6.12)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_lack_features() {
        assert!(unsupported(ABI::V1).unwrap().contains("TCP"));
        assert!(!unsupported(ABI::V5).unwrap().contains("TCP"));
        assert_eq!(unsupported(ABI::V6), None);
    }
}
