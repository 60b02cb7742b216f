//! Where this picket stands: its region and its stage.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name itself, shared.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                Self(Arc::from(name))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A region's name, such as `eu-west-1`.
    Region
}
name! {
    /// A stage's name, such as `gamma`.
    Stage
}
name! {
    /// A probe's name: the key of its table.
    ProbeName
}

/// Where this picket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The region that it stands in.
    pub region: Region,
    /// The stage that it serves.
    pub stage: Stage,
}
