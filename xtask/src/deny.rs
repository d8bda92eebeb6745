// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `deny`: licences, sources and versions of everything that is built in, by cargo-deny.

use crate::shell::Env;
use crate::tools::DENY;

const CHECK: &[&str] = &["--locked", "check", "bans", "licenses", "sources"];

/// What needs no server but the registry of crates.
pub(crate) fn run(env: &Env) -> anyhow::Result<()> {
    DENY.run(env, CHECK)
}

/// The same, and advisories, whose database is on a server of its own.
pub(crate) fn with_advisories(env: &Env) -> anyhow::Result<()> {
    DENY.run(env, &[CHECK, &["advisories"]].concat())
}
