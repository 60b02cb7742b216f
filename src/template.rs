//! Text with `${…}` in it: what is known when a file is loaded, and what only the run knows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use cookie_store::CookieStore;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use url::Url;

use crate::failure::{ErrorType, Failure};
use crate::near::nearest;
use crate::outcome::Ids;
use crate::place::ProbeName;
use crate::secret::{Redactor, Secret, Secrets};

/// What stands between `${` and `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `${run}`: unique to each run.
    Run,
    /// `${secret:NAME}`.
    Secret(String),
    /// `${env:NAME}`: known when the file is loaded.
    Env(String),
    /// `${NAME}`: region, stage and matrix keys when the file is loaded; else a capture.
    Named(String),
}

/// A mistake in a template, with its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the text, in bytes.
    pub at: Range<usize>,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Text whose variables are filled in when the run renders it.
#[derive(Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable, Range<usize>),
}

/// What a dollar is that neither `{` nor another dollar follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lone {
    /// A mistake: it may be a forgotten brace.
    Refused,
    /// Itself: in expectations it is the root of a `JSONPath` or the end of a pattern.
    Kept,
}

impl Template {
    /// Reads `${…}` and `$$`.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        Self::read(text, Lone::Refused)
    }

    /// Reads `${…}` and `$$` in an expectation, where a lone dollar is itself.
    pub fn parse_line(text: &str) -> Result<Self, Mistake> {
        Self::read(text, Lone::Kept)
    }

    fn read(text: &str, lone: Lone) -> Result<Self, Mistake> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find('$') {
            let dollar = at + found;
            plain.push_str(&text[at..dollar]);
            let rest = &text[dollar + 1..];
            if rest.starts_with('$') {
                plain.push('$');
                at = dollar + 2;
                continue;
            }
            if !rest.starts_with('{') && lone == Lone::Kept {
                plain.push('$');
                at = dollar + 1;
                continue;
            }
            if !rest.starts_with('{') {
                let message =
                    "a lone dollar: write $$ for a dollar, or ${name} for a variable".to_owned();
                return Err(Mistake { at: dollar..dollar + 1, message });
            }
            let Some(end) = rest.find('}') else {
                let message =
                    "`${` without its `}`: write $$ for a dollar, or ${name} for a variable"
                        .to_owned();
                return Err(Mistake { at: dollar..text.len(), message });
            };
            let range = dollar..dollar + 1 + end + 1;
            let variable = variable(&rest[1..end])
                .map_err(|message| Mistake { at: range.clone(), message })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            at = range.end;
            parts.push(Part::Variable(variable, range));
        }
        plain.push_str(&text[at..]);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// Text without any variable, as it is.
    pub fn plain(text: &str) -> Self {
        Self { parts: if text.is_empty() { Vec::new() } else { vec![Part::Text(text.to_owned())] } }
    }

    /// The variables and where they stand.
    pub fn variables(&self) -> impl Iterator<Item = (&Variable, &Range<usize>)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable, range) => Some((variable, range)),
            Part::Text(_) => None,
        })
    }

    /// The text, if nothing in it waits for the run.
    pub fn literal(&self) -> Option<Cow<'_, str>> {
        match self.parts.as_slice() {
            [] => Some(Cow::Borrowed("")),
            [Part::Text(text)] => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    /// Whether a secret stands in it.
    pub fn has_secret(&self) -> bool {
        self.variables().any(|(variable, _)| matches!(variable, Variable::Secret(_)))
    }

    /// Fills in what the run knows. A capture that is not there is a failure that names it.
    pub fn render(&self, scope: &Scope) -> Result<String, Failure> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Variable(variable, _) => text.push_str(&scope.value(variable)?),
            }
        }
        Ok(text)
    }
}

/// Fills in what is known when the file is loaded (`givens`: region, stage, matrix keys; and `env:`) and leaves the
/// rest as it is written, so that the answer is a template of what only the run knows: `known` names those.
pub fn settle(
    text: &str,
    givens: &BTreeMap<String, String>,
    known: &[String],
) -> Result<String, Mistake> {
    let template = Template::parse(text)?;
    let mut settled = String::new();
    for part in &template.parts {
        match part {
            Part::Text(plain) => settled.push_str(&plain.replace('$', "$$")),
            Part::Variable(variable, range) => match given(variable, range, givens, known)? {
                Given::Now(value) => settled.push_str(&value.replace('$', "$$")),
                Given::Later => settled.push_str(text.get(range.clone()).unwrap_or_default()),
            },
        }
    }
    Ok(settled)
}

/// As [`settle`], for an expectation: a lone dollar is itself, what is no variable stays as it was written, and a
/// value is escaped so that it cannot end the quotes that it stands in.
pub fn settle_line(
    text: &str,
    givens: &BTreeMap<String, String>,
    known: &[String],
) -> Result<String, Mistake> {
    let template = Template::parse_line(text)?;
    let mut settled = String::new();
    let mut copied = 0;
    for (variable, range) in template.variables() {
        if let Given::Now(value) = given(variable, range, givens, known)? {
            settled.push_str(text.get(copied..range.start).unwrap_or_default());
            for c in value.chars() {
                match c {
                    '$' => settled.push_str("$$"),
                    '\n' => settled.push_str("\\n"),
                    '\\' | '\'' | '"' => settled.extend(['\\', c]),
                    c => settled.push(c),
                }
            }
            copied = range.end;
        }
    }
    settled.push_str(text.get(copied..).unwrap_or_default());
    Ok(settled)
}

/// A variable when the file is loaded.
enum Given {
    /// Its value is known.
    Now(String),
    /// Only the run knows it.
    Later,
}

fn given(
    variable: &Variable,
    at: &Range<usize>,
    givens: &BTreeMap<String, String>,
    known: &[String],
) -> Result<Given, Mistake> {
    let undefined = |message| Mistake { at: at.clone(), message };
    match variable {
        Variable::Run | Variable::Secret(_) => Ok(Given::Later),
        Variable::Env(name) => std::env::var(name)
            .map(Given::Now)
            .map_err(|_| undefined(format!("${{env:{name}}} is not set in the environment"))),
        Variable::Named(name) => match givens.get(name) {
            Some(value) => Ok(Given::Now(value.clone())),
            None if known.iter().any(|capture| capture == name) => Ok(Given::Later),
            None => Err(undefined(unknown(name, givens, known))),
        },
    }
}

fn unknown(name: &str, givens: &BTreeMap<String, String>, known: &[String]) -> String {
    let names = || givens.keys().chain(known).map(String::as_str).chain(["run"]);
    if let Some(near) = nearest(name, names()) {
        return format!("no variable `{name}`: did you mean `{near}`?");
    }
    let all: Vec<_> = names().collect();
    format!("no variable `{name}`: here are {}, and env:NAME and secret:NAME", all.join(", "))
}

fn variable(inside: &str) -> Result<Variable, String> {
    let name = |text: &str| {
        let fits = !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        fits.then(|| text.to_owned())
    };
    match inside.split_once(':') {
        None if inside == "run" => Ok(Variable::Run),
        None => name(inside)
            .map(Variable::Named)
            .ok_or_else(|| format!("{inside:?} is no variable's name")),
        Some(("env", rest)) => {
            name(rest).map(Variable::Env).ok_or_else(|| format!("{rest:?} is no variable's name"))
        }
        Some(("secret", "")) => Err("a secret needs a name: ${secret:NAME}".to_owned()),
        Some(("secret", rest)) => Ok(Variable::Secret(rest.to_owned())),
        Some((kind, _)) => {
            Err(format!("no kind of variable `{kind}:`: write env:NAME or secret:NAME"))
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|mistake| mistake.message)
    }
}

impl fmt::Display for Template {
    /// As it is written, variables by name: fit to be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Variable(Variable::Run, _) => f.write_str("${run}")?,
                Part::Variable(Variable::Secret(name), _) => write!(f, "${{secret:{name}}}")?,
                Part::Variable(Variable::Env(name), _) => write!(f, "${{env:{name}}}")?,
                Part::Variable(Variable::Named(name), _) => write!(f, "${{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "Text in which ${region}, ${stage}, ${run}, captures, matrix keys, ${env:NAME} and ${secret:NAME} are filled in; $$ is a dollar." })
    }
}

/// How many bytes of `set-cookie` fields a run keeps: a target must not make its requests, or its memory, grow on and on.
const MAX_COOKIES: usize = 256 << 10;

/// The cookies of one run.
#[derive(Debug, Default)]
struct Jar {
    store: CookieStore,
    taken: usize,
}

impl Jar {
    fn keep(&mut self, field: &str, url: &Url) {
        let taken = self.taken + field.len();
        // What is no cookie, or is for another site, is not kept: so do browsers.
        if taken <= MAX_COOKIES && self.store.parse(field, url).is_ok() {
            self.taken = taken;
        }
    }
}

/// What one run knows: its ids, its captures, its secrets, its cookies.
#[derive(Debug)]
pub struct Scope {
    /// The probe that runs.
    pub probe: ProbeName,
    /// The run's ids.
    pub ids: Ids,
    /// Whether the run's context goes to the target as sampled.
    pub sampled: bool,
    /// Whether failures keep evidence.
    pub evidence: bool,
    secrets: Arc<Secrets>,
    captures: BTreeMap<String, String>,
    used: Mutex<Used>,
    cookies: Mutex<Jar>,
}

#[derive(Debug, Default)]
struct Used {
    redactor: Redactor,
    read: BTreeMap<String, Secret>,
}

impl Scope {
    /// A scope with no captures yet.
    pub fn new(probe: ProbeName, ids: Ids, secrets: Arc<Secrets>) -> Self {
        Self {
            probe,
            ids,
            sampled: true,
            evidence: true,
            secrets,
            captures: BTreeMap::new(),
            used: Mutex::default(),
            cookies: Mutex::default(),
        }
    }

    /// Keeps a captured value; a secret one is hidden from every record from now on.
    pub fn capture(&mut self, name: &str, value: String, secret: bool) {
        if secret {
            self.hide(&Secret::new(&value));
        }
        self.captures.insert(name.to_owned(), value);
    }

    /// Whether a capture of that name was made.
    pub fn has(&self, name: &str) -> bool {
        self.captures.contains_key(name)
    }

    /// Hides a value from every record of this run.
    pub fn hide(&self, secret: &Secret) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).redactor.hide(secret);
    }

    /// The text without any secret that this run has used.
    pub fn clean(&self, text: &str) -> String {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).redactor.clean(text)
    }

    /// What must be hidden, for work that outlives the scope.
    pub fn redactor(&self) -> Redactor {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).redactor.clone()
    }

    /// Keeps the cookies that an answer from `url` sets, for the rest of this run.
    pub fn keep_cookies<'a>(&self, url: &Url, fields: impl Iterator<Item = &'a str>) {
        let mut fields = fields.peekable();
        if fields.peek().is_none() {
            return;
        }
        let mut cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        for field in fields {
            cookies.keep(field, url);
        }
    }

    /// The cookies of this run for a request to `url`, as the header writes them.
    pub fn cookies_for(&self, url: &Url) -> Option<String> {
        let cookies = self.cookies.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pairs: Vec<_> = cookies
            .store
            .get_request_values(url)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.sort_unstable();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn value(&self, variable: &Variable) -> Result<Cow<'_, str>, Failure> {
        match variable {
            Variable::Run => Ok(Cow::Borrowed(self.ids.run.as_ref())),
            Variable::Secret(name) => {
                let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(secret) = used.read.get(name) {
                    return Ok(Cow::Owned(secret.expose().to_owned()));
                }
                // Read for each run: a rotated secret is taken up without a reload.
                let secret = self.secrets.read(name)?;
                used.redactor.hide(&secret);
                let value = secret.expose().to_owned();
                used.read.insert(name.clone(), secret);
                Ok(Cow::Owned(value))
            }
            Variable::Named(name) | Variable::Env(name) => match self.captures.get(name) {
                Some(value) => Ok(Cow::Borrowed(value)),
                None => Err(Failure::new(
                    ErrorType::ExpectValue,
                    format!("`{name}` was not captured, so ${{{name}}} has no value"),
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn givens() -> BTreeMap<String, String> {
        BTreeMap::from([
            ("region".to_owned(), "eu-west-1".to_owned()),
            ("stage".to_owned(), "prod".to_owned()),
        ])
    }

    #[test]
    fn load_time_names_are_filled_in_and_the_rest_waits() {
        let settled = settle(
            "https://a.${region}.x/${order}?r=${run}&p=$$1",
            &givens(),
            &["order".to_owned()],
        )
        .unwrap();
        assert_eq!(settled, "https://a.eu-west-1.x/${order}?r=${run}&p=$$1");
        assert!(Template::parse(&settled).unwrap().literal().is_none());
    }

    #[test]
    fn an_undefined_name_says_what_is_near() {
        let mistake = settle("x ${regoin}", &givens(), &[]).unwrap_err();
        assert_eq!(mistake.at, 2..11);
        assert!(mistake.message.contains("did you mean `region`?"), "{}", mistake.message);
        assert!(settle("${env:NO_SUCH_VARIABLE_HERE}", &givens(), &[]).is_err());
        assert!(settle("50$ ", &givens(), &[]).unwrap_err().message.contains("$$"));
    }

    #[test]
    fn in_an_expectation_a_lone_dollar_is_itself() {
        let line = r#"json["$.a[?@.b == '${region}']"] matches '^${order}$'"#;
        let settled = settle_line(line, &givens(), &["order".to_owned()]).unwrap();
        assert_eq!(settled, r#"json["$.a[?@.b == 'eu-west-1']"] matches '^${order}$'"#);
        assert_eq!(settle_line("body == '$$1'", &givens(), &[]).unwrap(), "body == '$$1'");
        assert_eq!(settle_line("body == '${regin}'", &givens(), &[]).unwrap_err().at, 9..17);
    }

    #[test]
    fn a_given_value_cannot_end_the_quotes_that_it_stands_in() {
        let givens = BTreeMap::from([("who".to_owned(), "O'Hara $5\\".to_owned())]);
        let settled = settle_line("json.a == '${who}'", &givens, &[]).unwrap();
        assert_eq!(settled, r"json.a == 'O\'Hara $$5\\'");
    }

    fn scope() -> Scope {
        let place = crate::place::Place { region: "eu-west-1".into(), stage: "prod".into() };
        let due = crate::clock::Timestamp::from_secs(1);
        let ids = Ids::of(&"api".into(), &crate::outcome::Labels::default(), &place, due, 0);
        Scope::new("api".into(), ids, Arc::new(Secrets::default()))
    }

    #[test]
    fn a_run_fills_in_its_captures_and_names_the_one_that_is_not_there() {
        let mut scope = scope();
        let template = Template::parse("/orders/${order}?cost=$$5").unwrap();
        let failure = template.render(&scope).unwrap_err();
        assert_eq!(failure.error_type, ErrorType::ExpectValue);
        assert!(failure.message.contains("`order`"), "{}", failure.message);
        scope.capture("order", "o-1".to_owned(), false);
        assert_eq!(template.render(&scope).unwrap(), "/orders/o-1?cost=$5");
    }

    #[test]
    fn a_secret_capture_is_hidden_from_records() {
        let mut scope = scope();
        scope.capture("token", "t0ken".to_owned(), true);
        assert_eq!(Template::parse("${token}").unwrap().render(&scope).unwrap(), "t0ken");
        assert_eq!(scope.clean("Bearer t0ken"), "Bearer ***");
    }

    #[test]
    fn a_template_reads_back_as_it_was_written() {
        for text in ["", "plain", "a ${run} b", "${secret:api/key}", "${order}${region}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
        for text in ["$", "${", "${}", "${a b}", "${secret:}", "${vault:x}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_keeps_its_cookies_and_no_flood_of_them() {
        let url = Url::parse("http://shop.test/").unwrap();
        let mut jar = Jar::default();
        jar.keep("basket=1", &url);
        for flood in 0..100 {
            jar.keep(&format!("c{flood}={}", "v".repeat(4000)), &url);
        }
        let kept: usize = jar.store.get_request_values(&url).map(|(_, value)| value.len()).sum();
        assert!(kept > 200 << 10 && kept <= MAX_COOKIES, "{kept}");
        assert!(jar.store.get_request_values(&url).any(|pair| pair == ("basket", "1")));
    }
}
