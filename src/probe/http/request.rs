//! What is to be asked: the settings with their variables filled in.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use url::Url;

use super::redirect::stays_home;
use super::settings::{Auth, Settings};
use super::text::Text;
use crate::failure::{ErrorType, Failure};
use crate::secret::Secret;
use crate::setting::Refused;
use crate::template::{Scope, Template, Variable};

/// One request, ready but for what changes from run to run.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The user's fields, and those that follow from the body and `auth`. What must not leave the origin is marked
    /// as sensitive.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What no record may show.
    pub(super) credentials: Vec<Secret>,
}

/// Why a request could not be made out.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A key does not fit.
    Refused(Refused),
    /// A variable has no value.
    Failure(Failure),
}

impl From<Refused> for Trouble {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Failure(failure) => failure,
            Trouble::Refused(Refused { key, message }) => {
                Self::new(ErrorType::ConfigInvalid, format!("{key}: {message}"))
            }
        }
    }
}

/// Fills in a template.
pub(super) type Fill<'a> = &'a dyn Fn(&Template) -> Result<String, Failure>;

impl Settings {
    /// Makes out the request. `fill` gives each template's text; `from_file` is what `body_file` holds.
    pub(super) fn ask(&self, fill: Fill<'_>, from_file: Option<&Bytes>) -> Result<Ask, Trouble> {
        let mut url = target(&fill(&self.url)?)?;
        if !self.query.is_empty() {
            let pairs = filled(&self.query, fill)?;
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 2);
        for (name, Text(template)) in &self.headers {
            let (name, mut value) = field(name, &fill(template)?)?;
            value.set_sensitive(template.has_secret() || stays_home(&name));
            headers.append(name, value);
        }
        if let Some(value) = self.authorization(fill)? {
            headers.insert(header::AUTHORIZATION, value);
        }
        let (content_type, body) = self.content(fill, from_file)?;
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_static(content_type);
            headers.entry(header::CONTENT_TYPE).or_insert(value);
        }
        let mut credentials = credentials(&headers);
        if let Some(Auth::Basic(basic)) = &self.auth {
            credentials.extend(credential(&fill(&basic.password)?));
        }
        Ok(Ask { method: self.method()?, url, headers, body, credentials })
    }

    /// The method: as written, or what the body asks for.
    pub(super) fn method(&self) -> Result<Method, Refused> {
        let Some(method) = &self.method else {
            let with_body = self.bodies().next().is_some();
            return Ok(if with_body { Method::POST } else { Method::GET });
        };
        let refused = |message: String| Refused::new("method", message);
        let parsed = Method::from_bytes(method.as_bytes()).map_err(|_| {
            refused(format!("{method:?} is no method: write GET, POST or another token"))
        })?;
        let upper = method.to_ascii_uppercase();
        if upper != *method
            && Method::from_bytes(upper.as_bytes()).is_ok_and(|upper| is_known(&upper))
        {
            return Err(refused(format!("methods are case-sensitive: write {upper}")));
        }
        if parsed == Method::CONNECT {
            return Err(refused(
                "CONNECT is for proxies: write `proxy`, or another method".to_owned(),
            ));
        }
        Ok(parsed)
    }

    /// The keys that give a body.
    pub(super) fn bodies(&self) -> impl Iterator<Item = &'static str> {
        [
            ("body", self.body.is_some()),
            ("json", self.json.is_some()),
            ("form", self.form.is_some()),
            ("body_file", self.body_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
    }

    fn authorization(&self, fill: Fill<'_>) -> Result<Option<HeaderValue>, Trouble> {
        let text = match &self.auth {
            None => return Ok(None),
            Some(Auth::Basic(basic)) => {
                let pair = format!("{}:{}", fill(&basic.user)?, fill(&basic.password)?);
                format!("Basic {}", BASE64.encode(pair))
            }
            Some(Auth::Bearer(token)) => format!("Bearer {}", fill(token)?),
            Some(Auth::Oauth2(_)) => return Err(later("auth.oauth2", "OAuth 2").into()),
            Some(Auth::Sigv4(_)) => return Err(later("auth.sigv4", "SigV4").into()),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Refused::new("auth", "a token with a line end or a control character"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn content(
        &self,
        fill: Fill<'_>,
        from_file: Option<&Bytes>,
    ) -> Result<(Option<&'static str>, Bytes), Failure> {
        if let Some(body) = &self.body {
            return Ok((None, fill(body)?.into()));
        }
        if let Some(json) = &self.json {
            return Ok((Some("application/json"), filled_json(json, fill)?.to_string().into()));
        }
        if let Some(form) = &self.form {
            let mut encoder = url::form_urlencoded::Serializer::new(String::new());
            encoder.extend_pairs(filled(form, fill)?);
            return Ok((Some("application/x-www-form-urlencoded"), encoder.finish().into()));
        }
        Ok((None, from_file.cloned().unwrap_or_default()))
    }

    /// Every template whose value may stand in a request.
    pub(super) fn templates(&self) -> Vec<Template> {
        let auth = match &self.auth {
            Some(Auth::Basic(basic)) => vec![&basic.user, &basic.password],
            Some(Auth::Bearer(token)) => vec![token],
            Some(Auth::Oauth2(_) | Auth::Sigv4(_)) | None => Vec::new(),
        };
        let form = self.form.iter().flat_map(BTreeMap::values);
        let texts = self.headers.values().chain(self.query.values()).chain(form);
        let mut templates: Vec<_> = [Some(&self.url), self.body.as_ref(), self.proxy.as_ref()]
            .into_iter()
            .flatten()
            .chain(auth)
            .chain(texts.map(|Text(template)| template))
            .cloned()
            .collect();
        if let Some(json) = &self.json {
            gather(json, &mut templates);
        }
        templates
    }
}

/// The credentials among header fields, also without their scheme; a target may say them back. What is shorter than a
/// credential should be is left alone: it would blot out half of every record.
fn credentials(headers: &HeaderMap) -> Vec<Secret> {
    headers
        .iter()
        .filter(|(name, value)| value.is_sensitive() && **name != header::HOST)
        .filter_map(|(_, value)| value.to_str().ok())
        .flat_map(|value| [Some(value), value.split_once(' ').map(|(_, token)| token)])
        .flatten()
        .filter_map(credential)
        .collect()
}

fn credential(value: &str) -> Option<Secret> {
    const SHORTEST: usize = 6;
    (value.len() >= SHORTEST).then(|| Secret::new(value))
}

/// Refuses what is not built yet.
pub(super) fn later(key: &str, what: &str) -> Refused {
    Refused::new(key, format!("{what} comes in a later version of picket"))
}

/// Reads the address of a request.
pub(super) fn target(text: &str) -> Result<Url, Refused> {
    let refused = |message: String| Refused::new("url", message);
    let mut url = Url::parse(text).map_err(|error| {
        refused(format!(
            "no URL ({error}): write a whole one, such as https://orders.example.com/health"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused(format!(
            "`{}:` is not for this kind: write http:// or https://",
            url.scheme()
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let message = "a user in a URL shows up in records: write auth = { basic = { user = \"…\", password = \"…\" } }";
        return Err(refused(message.to_owned()));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Reads a header field.
pub(super) fn field(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Refused> {
    let key = format!("headers.{name}");
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Refused::new(&key, format!("{name:?} is no header's name")))?;
    if matches!(parsed, header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
        return Err(Refused::new(&key, "picket works out the body's length: leave it out"));
    }
    let value = HeaderValue::from_str(value).map_err(|_| {
        Refused::new(&key, "a header's value has no line end and no control character")
    })?;
    Ok((parsed, value))
}

fn is_known(method: &Method) -> bool {
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::PATCH]
        .contains(method)
        || [Method::OPTIONS, Method::TRACE, Method::CONNECT].contains(method)
}

fn filled(
    texts: &BTreeMap<String, Text>,
    fill: Fill<'_>,
) -> Result<Vec<(String, String)>, Failure> {
    texts.iter().map(|(name, Text(template))| Ok((name.clone(), fill(template)?))).collect()
}

fn filled_json(json: &Value, fill: Fill<'_>) -> Result<Value, Failure> {
    Ok(match json {
        Value::String(text) => match Template::parse(text) {
            Ok(template) => Value::String(fill(&template)?),
            Err(mistake) => return Err(Failure::new(ErrorType::ConfigInvalid, mistake.message)),
        },
        Value::Array(items) => Value::Array(
            items.iter().map(|item| filled_json(item, fill)).collect::<Result<_, _>>()?,
        ),
        Value::Object(map) => {
            if let Some(moment) = moment(map) {
                return Ok(moment.clone());
            }
            let pairs = map.iter().map(|(key, value)| Ok((key.clone(), filled_json(value, fill)?)));
            Value::Object(pairs.collect::<Result<_, Failure>>()?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => json.clone(),
    })
}

/// A bare TOML date or time, which comes through serde as a map of one private key.
fn moment(map: &serde_json::Map<String, Value>) -> Option<&Value> {
    map.get("$__toml_private_datetime").filter(|_| map.len() == 1)
}

fn gather(json: &Value, templates: &mut Vec<Template>) {
    match json {
        Value::String(text) => templates.extend(Template::parse(text).ok()),
        Value::Array(items) => items.iter().for_each(|item| gather(item, templates)),
        Value::Object(map) => map.values().for_each(|value| gather(value, templates)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Hides a template's secrets from this run's records also as they look inside URLs, forms and JSON.
pub(super) fn hide_disguises(template: &Template, scope: &Scope) -> Result<(), Failure> {
    for (variable, _) in template.variables() {
        let Variable::Secret(name) = variable else { continue };
        let Ok(alone) = Template::parse(&format!("${{secret:{name}}}")) else { continue };
        let value = alone.render(scope)?;
        let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let json = Value::String(value.clone()).to_string();
        let disguises = [
            Some(form.replace('+', "%20")),
            Some(form),
            json.get(1..json.len() - 1).map(str::to_owned),
            in_url(|url| url.set_path(&value)),
            in_url(|url| url.set_query(Some(&value))),
        ];
        for disguise in disguises.into_iter().flatten().filter(|disguise| *disguise != value) {
            scope.hide(&Secret::new(&disguise));
        }
    }
    Ok(())
}

/// What is left of a value inside a URL.
fn in_url(place: impl FnOnce(&mut Url)) -> Option<String> {
    let mut url = Url::parse("http://a/").ok()?;
    place(&mut url);
    let text = url.query().unwrap_or_else(|| url.path().trim_start_matches('/'));
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

/// Takes the user and password out of an address.
pub(super) fn without_userinfo(url: &mut Url) {
    // Only URLs without a host refuse this, and they have no user.
    url.set_username("").and_then(|()| url.set_password(None)).unwrap_or_default();
}

/// A value that is known only in the run does not fit.
pub(super) fn unfit(key: &str, message: &str) -> Failure {
    Trouble::Refused(Refused::new(key, message)).into()
}
