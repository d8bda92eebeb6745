// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `model`: loom explores every interleaving of the lock-free parts.

use xshell::cmd;

use crate::flags::Model;
use crate::shell::Env;

/// The crates that have models, in modules or tests with `loom` in their path.
const CRATES: &[&str] = &["vsock-inner", "vsock-virtio"];

pub(crate) fn run(env: &Env, options: &Model) -> anyhow::Result<()> {
    let _loom = env.sh.push_env("RUSTFLAGS", "--cfg loom");
    let _target = env.sh.push_env("CARGO_TARGET_DIR", env.target.join("loom"));
    for (name, value) in limits(options) {
        env.sh.set_var(name, value);
    }
    // A filter of the user's stands in for the common part of the models' names.
    let filter = options.filter.as_deref().unwrap_or("loom");
    for name in CRATES {
        cmd!(
            env.sh,
            "cargo test --package {name} --release --locked --lib {filter}"
        )
        .run()?;
    }
    Ok(())
}

/// With the models' own bounds, as `ci` runs it.
pub(crate) fn with_defaults(env: &Env) -> anyhow::Result<()> {
    run(
        env,
        &Model {
            filter: None,
            preemptions: None,
            branches: None,
            seconds: None,
        },
    )
}

/// The limits as loom reads them. A flag wins over a variable that the user has set, and that over
/// the models' own bounds.
fn limits(options: &Model) -> Vec<(&'static str, String)> {
    let flags = [
        (
            "LOOM_MAX_PREEMPTIONS",
            options.preemptions.map(|n| n.to_string()),
        ),
        ("LOOM_MAX_BRANCHES", options.branches.map(|n| n.to_string())),
        ("LOOM_MAX_DURATION", options.seconds.map(|n| n.to_string())),
    ];
    flags
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Model, limits};

    #[test]
    fn only_flags_that_were_given_are_set() {
        let options = Model {
            filter: None,
            preemptions: Some(3),
            branches: None,
            seconds: Some(60),
        };
        let expected = [
            ("LOOM_MAX_PREEMPTIONS", "3".to_owned()),
            ("LOOM_MAX_DURATION", "60".to_owned()),
        ];
        assert_eq!(limits(&options), expected);
    }
}
