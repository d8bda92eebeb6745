// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's boot, from the start of the first program to the first job.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// The second serial port.
const CONTROL: &str = "/dev/ttyS1";
/// Where the host puts the modules. Their names sort in the order of loading.
const MODULES: &str = "/modules";
/// The program's descriptor limit: more than the connections of any test.
const DESCRIPTORS: u64 = 65_536;

/// Mounts the three file systems that programs expect.
pub(crate) fn mount_all() -> anyhow::Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place)?;
        let none = None::<&str>;
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), none) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot mount {place}")),
        }
    }
    Ok(())
}

/// Loads every module in the initramfs.
pub(crate) fn load_modules() -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(MODULES)
        .with_context(|| format!("no {MODULES}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    for file in files {
        let module = File::open(&file)?;
        match finit_module(&module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot load {}", file.display()));
            }
        }
    }
    Ok(())
}

pub(crate) fn raise_descriptor_limit() -> anyhow::Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)
        .context("cannot raise the descriptor limit")
}

/// Opens the serial port in raw mode.
pub(crate) fn open_control() -> anyhow::Result<File> {
    let port = File::options()
        .read(true)
        .write(true)
        .open(CONTROL)
        .with_context(|| format!("cannot open {CONTROL}"))?;
    let mut settings = tcgetattr(&port)?;
    cfmakeraw(&mut settings);
    tcsetattr(&port, SetArg::TCSANOW, &settings)?;
    Ok(port)
}

/// Returns the kernel's release.
pub(crate) fn release() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}
