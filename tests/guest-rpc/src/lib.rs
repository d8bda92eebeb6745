// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One service over gRPC, ttrpc and HTTP, and the clients' workloads. One side of a vsock device
//! runs the service and the other the client. Only the [`Transport`](transport::Transport) differs
//! between the sides.

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "errors come from the libraries, with context, and end a run"
)]

mod client;
pub mod counts;
mod frames;
mod grpc;
mod http;
mod load;
mod message;
pub mod program;
pub mod serve;
pub mod task;
pub mod transport;
mod ttrpc;
mod vsock;
pub mod work;
