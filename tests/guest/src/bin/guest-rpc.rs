// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program of the test guest that speaks RPC.

#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    vsock_guest_rpc::program::run()
}
