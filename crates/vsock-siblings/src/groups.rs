// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The groups of a guest. The guest can connect to the guests with which it has a group in common.
///
/// In text form, the names are joined by `+`. By default there are no groups, and the guest cannot
/// connect to any other guest.
///
/// ```
/// use vsock_siblings::{Groups, GroupsError};
///
/// let web: Groups = "front+back".parse()?;
/// let database: Groups = "back".parse()?;
/// assert!(web.share_one_with(&database));
/// assert!(!Groups::default().share_one_with(&database));
/// assert_eq!(web.to_string(), "back+front");
/// # Ok::<(), GroupsError>(())
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Groups(BTreeSet<String>);

impl Groups {
    /// Returns whether the two have a group in common.
    #[must_use]
    pub fn share_one_with(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// Returns whether there are no groups.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for Groups {
    /// Collects names. An item can also contain several names joined by `+`. Empty names are
    /// ignored.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut groups = BTreeSet::new();
        for item in names {
            let names = item.split('+').filter(|name| !name.is_empty());
            groups.extend(names.map(str::to_owned));
        }
        Self(groups)
    }
}

impl FromStr for Groups {
    type Err = GroupsError;

    fn from_str(text: &str) -> Result<Self, GroupsError> {
        let names = text.split('+').map(|name| {
            if name.is_empty() {
                return Err(GroupsError::EmptyName);
            }
            Ok(name.to_owned())
        });
        names.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            let sign = if at == 0 { "" } else { "+" };
            write!(f, "{sign}{name}")?;
        }
        Ok(())
    }
}

/// The error for an invalid list of groups.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum GroupsError {
    /// A name is empty.
    #[error("expected group names joined by +, such as web+database")]
    EmptyName,
}
