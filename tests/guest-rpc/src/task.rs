// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The task that the host gives the program in the guest, as JSON.

use serde::{Deserialize, Serialize};

use crate::work::Work;

/// An RPC protocol.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Protocol {
    /// gRPC, by tonic.
    Grpc,
    /// ttrpc.
    Ttrpc,
    /// HTTP/1.1, by axum and hyper.
    Http1,
    /// HTTP/2, by axum and hyper.
    Http2,
}

/// When a reader is woken.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Wake {
    /// When any byte has arrived.
    #[default]
    AnyByte,
    /// When the rest of the current HTTP/2 frame has arrived, or as much as fits (`SO_RCVLOWAT`).
    Frame,
}

/// The program's part, and its protocol.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Task {
    /// The protocol.
    pub protocol: Protocol,
    /// The service's port.
    pub port: u32,
    /// When the guest's readers are woken.
    pub wake: Wake,
    /// Client or service.
    pub part: Part,
}

/// Client or service.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Part {
    /// Calls the host's service and prints what it has counted.
    Call(Work),
    /// Runs the service. Connects to a port of the host when it has started, sends a byte there
    /// when the first call begins, and stops when the host ends that connection. Prints what it has
    /// counted.
    Serve {
        /// The port of the host.
        until: u32,
    },
    /// Runs the service in the same way, but is killed when the first call begins.
    Die {
        /// The port of the host.
        until: u32,
    },
}
