// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How much may be under way: the two windows of a connection (virtio 1.3, 5.10.6.3).
//!
//! Each side tells the other `buf_alloc`, the size of its receive buffer, and `fwd_cnt`, how many
//! bytes it has taken out of it so far. The sender counts what it has sent, `tx_cnt`, and may send
//!
//! ```text
//! free = buf_alloc - (tx_cnt - fwd_cnt)
//! ```
//!
//! more bytes. The inner difference is that of two counters which wrap at 2^32, so it is taken
//! modulo 2^32. The outer one is not: where a peer shrinks its buffer below what is under way, the
//! result is zero, not four gigabytes.
//!
//! No other module subtracts counters. [`SendWindow`] is what we may send, [`RecvWindow`] what the
//! peer may send to us, [`PacketWindow`] bounds how many packets are under way, whatever their size.

mod empties;
mod packets;
mod receive;
mod send;

pub use packets::PacketWindow;
pub use receive::RecvWindow;
pub use send::SendWindow;
