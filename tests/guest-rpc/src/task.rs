// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the host tells the program in the guest to do: one word of JSON.

use serde::{Deserialize, Serialize};

use crate::work::Work;

/// What is spoken.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Protocol {
    /// By tonic.
    Grpc,
    /// By ttrpc.
    Ttrpc,
    /// HTTP/1.1, by axum and hyper.
    Http1,
    /// HTTP/2, by axum and hyper.
    Http2,
}

/// When a reader is woken.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Wake {
    /// When any byte is there.
    #[default]
    AnyByte,
    /// When the rest of the HTTP/2 frame that it is in is there, or as much as fits
    /// (`SO_RCVLOWAT`).
    Frame,
}

/// Which part the program takes, over what.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Task {
    /// What is spoken.
    pub protocol: Protocol,
    /// Of the service.
    pub port: u32,
    /// When the guest's readers are woken.
    pub wake: Wake,
    /// Client or service.
    pub part: Part,
}

/// Client or service.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Part {
    /// Calls the service of the host; the program says what came of it.
    Call(Work),
    /// Serves the host from when it has connected to this port of the host until the host ends that
    /// connection, on which a byte says that the first call has begun; the program says what it has
    /// counted.
    Serve {
        /// The port of the host.
        until: u32,
    },
    /// Serves the host in the same way, but when the first call has begun the program is killed.
    Die {
        /// The port of the host.
        until: u32,
    },
}
