//! A value that never prints.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::failure::{ErrorType, Failure};

/// A secret value: `Debug` shows stars, there is no `Display`, and only `expose` gives it away.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides a value.
    pub fn new(value: &str) -> Self {
        Self(Arc::from(value))
    }

    /// The value itself: for the wire, never for a record.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where secrets are looked for, in this order: systemd's credentials, a file, the environment.
/// `${secret:NAME}` asks for each in turn; `file:/path` or a path, and `env:NAME`, ask for one alone.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// `$CREDENTIALS_DIRECTORY`, when systemd gave one.
    pub credentials: Option<PathBuf>,
    /// A folder with one file a secret.
    pub folder: Option<PathBuf>,
}

impl Secrets {
    /// The sources of this process.
    pub fn here() -> Self {
        Self {
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            folder: None,
        }
    }

    /// Reads a secret anew. What is missing says where it was looked for, and never a value.
    pub fn read(&self, name: &str) -> Result<Secret, Failure> {
        if let Some(variable) = name.strip_prefix("env:") {
            return from_environment(variable)
                .ok_or_else(|| missing(name, &format!("${variable} is not set")));
        }
        if let Some(path) =
            name.strip_prefix("file:").or_else(|| name.starts_with('/').then_some(name))
        {
            return from_file(Path::new(path)).map_err(|why| missing(name, &why));
        }
        let mut tried = Vec::new();
        for folder in [&self.credentials, &self.folder].into_iter().flatten() {
            match from_file(&folder.join(name)) {
                Ok(secret) => return Ok(secret),
                Err(why) => tried.push(why),
            }
        }
        from_environment(name).ok_or_else(|| {
            tried.push(format!("${name} is not set"));
            missing(name, &tried.join(", "))
        })
    }
}

fn from_environment(variable: &str) -> Option<Secret> {
    std::env::var(variable).ok().filter(|value| !value.is_empty()).map(|value| Secret::new(&value))
}

fn from_file(path: &Path) -> Result<Secret, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']))),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn missing(name: &str, why: &str) -> Failure {
    Failure::new(ErrorType::AgentNoCredentials, format!("no secret {name:?} ({why})"))
}

/// A text as JSON writes it, without its quotes.
fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// JSON whose other letters are escaped, as many a server writes it.
fn in_ascii(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                escaped.extend(["\\u", &format!("{unit:04x}")]);
            }
        }
    }
    escaped
}

/// What a record may not show: every secret that a run has used.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Vec<Secret>,
}

/// What stands in a record in a secret's place.
pub const REDACTED: &str = "***";

impl Redactor {
    /// From now on this value is hidden, and what JSON makes of it when it is echoed in a body: once, or as a text
    /// in a text; with its letters, or with escapes alone; as UTF-8, or byte by byte as headers are often read.
    pub fn hide(&mut self, secret: &Secret) {
        let plain = secret.expose();
        self.hide_text(secret);
        for read in [plain.to_owned(), plain.bytes().map(char::from).collect()] {
            self.hide_text(&Secret::new(&read));
            for once in [in_json(&read), in_ascii(&in_json(&read))] {
                self.hide_text(&Secret::new(&once));
                self.hide_text(&Secret::new(&in_json(&once)));
            }
        }
    }

    fn hide_text(&mut self, secret: &Secret) {
        if !secret.expose().is_empty() && !self.values.contains(secret) {
            self.values.push(secret.clone());
            // Longest first, so that a secret inside another leaves nothing behind.
            self.values.sort_by_key(|value| std::cmp::Reverse(value.expose().len()));
        }
    }

    /// The text without any hidden value.
    pub fn clean(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for value in &self.values {
            if clean.contains(value.expose()) {
                clean = clean.replace(value.expose(), REDACTED);
            }
        }
        clean
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor of {}", self.values.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "***");
        let mut redactor = Redactor::default();
        redactor.hide(&secret);
        assert_eq!(redactor.clean("token=hunter2&x"), "token=***&x");
        redactor.hide(&Secret::new("a\"b"));
        assert_eq!(redactor.clean(r#"{"token":"a\"b"}"#), r#"{"token":"***"}"#);
    }

    #[test]
    fn an_echo_in_json_hides_a_secret_in_every_spelling() {
        let mut redactor = Redactor::default();
        redactor.hide(&Secret::new("a\"é"));
        for echo in [
            r#"{"k":"a\"é"}"#,
            r#"{"k":"a\"\u00e9"}"#,
            r#"{"k":"a\"\u00c3\u00a9"}"#,
            r#"{"body":"{\"k\":\"a\\\"é\"}"}"#,
            r#"{"body":"{\"k\":\"a\\\"\\u00e9\"}"}"#,
        ] {
            let shown = redactor.clean(echo);
            assert!(shown.contains("***") && !shown.contains("a\\"), "{shown}");
        }
    }

    #[test]
    fn a_credential_comes_before_the_environment_and_loses_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("PATH"), "from a file\n").unwrap();
        let secrets = Secrets { credentials: Some(folder.path().to_owned()), folder: None };
        assert_eq!(secrets.read("PATH").unwrap().expose(), "from a file");
        assert_ne!(secrets.read("env:PATH").unwrap().expose(), "from a file");
        let failure = secrets.read("no-such-secret").unwrap_err();
        assert!(failure.message.contains("no-such-secret"), "{}", failure.message);
    }
}
