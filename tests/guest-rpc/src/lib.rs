// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One service, spoken by gRPC, ttrpc and HTTP, and the work that clients give it. Either side of a
//! vsock device has the service, and the other the client: what differs is a
//! [`Transport`](transport::Transport).

#![forbid(unsafe_code)]
#![expect(
    clippy::missing_errors_doc,
    reason = "errors are of the libraries, with their context, and end a run"
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
