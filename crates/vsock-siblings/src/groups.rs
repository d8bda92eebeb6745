// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The groups of a guest: it may talk to the guests that are in one of them.
///
/// Written as names with `+` between them. None, the default, means to no other guest.
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
    /// Whether a group is in both.
    #[must_use]
    pub fn share_one_with(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    /// Whether there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for Groups {
    /// An item may be several names with `+` between them. Empty names do not count.
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

/// What is wrong with a list of groups.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum GroupsError {
    /// A name is empty.
    #[error("expected names of groups with + between them, as web+database")]
    EmptyName,
}
