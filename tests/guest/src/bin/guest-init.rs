// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first program of the test guest.

#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    vsock_guest_program::init::run()
}
