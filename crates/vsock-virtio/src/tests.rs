// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Chains to packets and back, without a muxer: what no packet of a guest can show from outside.

#![cfg(not(loom))]

mod chain;
mod rx;
mod stream;
mod tx;
