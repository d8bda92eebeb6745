// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `model`: loom explores every interleaving of the lock-free code.

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
    // The user's filter replaces the common part of the models' names.
    let filter = options.filter.as_deref().unwrap_or("loom");
    for name in CRATES {
        cmd!(
            env.sh,
            "cargo test --package {name} --profile model --locked --lib {filter}"
        )
        .run()?;
    }
    Ok(())
}

/// Runs the models with their own bounds, as `ci` does.
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

/// Returns the variables that loom reads. A flag overrides the user's variable, which overrides the
/// models' own bounds.
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
