//! What can be wrong with a table of settings.

/// A key that does not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The key, dots for nesting; empty for the table as a whole.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl Refused {
    /// This key, for this reason.
    pub fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }
}

/// Why a table could not be read.
#[derive(Debug)]
pub enum Unfit {
    /// A key or a value does not fit the type; the error has its span.
    Shape(toml::de::Error),
    /// Its owner refused it.
    Refused(Refused),
}
