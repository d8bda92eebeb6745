// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Replaces the running kernel by another, without the firmware (`kexec_file_load(2)`).

#![expect(unsafe_code, reason = "no library offers this system call")]

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use anyhow::Context;
use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};

/// Copies of the files that this guest booted from.
const KERNEL: &str = "/boot/kernel";
const INITRAMFS: &str = "/boot/initramfs";

/// Boots them with this kernel's parameters.
pub(crate) fn start() -> anyhow::Result<Infallible> {
    let open = |path| File::open(path).with_context(|| format!("no {path}"));
    let parameters = fs::read_to_string("/proc/cmdline")?;
    let parameters = CString::new(parameters.trim())?;
    load(&open(KERNEL)?, &open(INITRAMFS)?, &parameters).context("cannot load the kernel")?;
    reboot(RebootMode::RB_KEXEC).context("cannot start the kernel")
}

fn load(kernel: &File, initramfs: &File, parameters: &CString) -> io::Result<()> {
    const NO_FLAGS: libc::c_ulong = 0;
    // SAFETY: the kernel only reads the parameters, whose length is passed and which live until it
    // returns; both descriptors stay open until then.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initramfs.as_raw_fd(),
            parameters.as_bytes_with_nul().len(),
            parameters.as_ptr(),
            NO_FLAGS,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
