//! A body as JSON: bounded in depth and memory, its numbers exact.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::rc::Rc;

use serde::de::IgnoredAny;
use serde_json::{Map, Number, Value};

/// How deep arrays and objects may nest.
const DEPTH: usize = 128;

/// The memory that a document may take whatever its size, and for each byte of the body.
const MEMORY: usize = 8 << 20;
const MEMORY_PER_BYTE: usize = 16;

/// What one value, one array, one object and one member take in the tree: an array has room for four items at once, and
/// an object for eleven members.
const VALUE: usize = 2 * size_of::<Value>();
const ARRAY: usize = 4 * size_of::<Value>();
const OBJECT: usize = 640;
const MEMBER: usize = size_of::<String>();

/// How many numbers may be kept as they were written because no machine number holds them; further ones are the
/// nearest machine number.
const EXACT: usize = 1_000;

/// A JSON document.
#[derive(Debug)]
pub struct Json {
    // Boxed, so that a node's address stays what it is when the document moves.
    root: Box<Value>,
    exact: BTreeMap<usize, Box<str>>,
    values: usize,
    depth: usize,
}

impl Json {
    /// Reads a document. What cannot be read says why.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|error| {
            format!("the body is not JSON: no UTF-8 at byte {}", error.valid_up_to())
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err("the body is not JSON: it is empty".to_owned());
        }
        let budget = MEMORY + body.len().saturating_mul(MEMORY_PER_BYTE);
        let mut parser =
            Parser { text, at: 0, depth: 0, left: budget, document: Counts::default() };
        let root = parser.whole().map_err(|trouble| trouble.told(text, budget))?;
        let Counts { values, depth, numbers } = parser.document;
        let root = Box::new(root);
        let exact = numbers.into_iter().filter_map(|number| number.settle(&root)).collect();
        Ok(Self { root, exact, values, depth })
    }

    /// The whole document.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// How many values it has.
    pub fn values(&self) -> usize {
        self.values
    }

    /// How deep it nests.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// A number of this document, exactly as its decimal digits say.
    pub fn number<'a>(&'a self, value: &'a Value) -> Option<Cow<'a, str>> {
        let Value::Number(number) = value else { return None };
        match self.exact.get(&address(value)) {
            Some(text) => Some(Cow::Borrowed(text)),
            None => Some(Cow::Owned(number.to_string())),
        }
    }

    /// A value of this document as compact JSON, its numbers exact. `clean` is asked for every text; writing stops
    /// after about `limit` bytes, though never within a text.
    pub fn write(&self, value: &Value, limit: usize, clean: &dyn Fn(&str) -> String) -> String {
        let mut out = String::new();
        self.write_into(value, limit, clean, &mut out);
        out
    }

    fn write_into(
        &self,
        value: &Value,
        limit: usize,
        clean: &dyn Fn(&str) -> String,
        out: &mut String,
    ) {
        let quoted = |text: &str| Value::String(clean(text)).to_string();
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(_) => out.push_str(&self.number(value).unwrap_or_default()),
            Value::String(text) => out.push_str(&quoted(text)),
            Value::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if out.len() > limit {
                        return;
                    }
                    out.push_str(if index == 0 { "" } else { "," });
                    self.write_into(item, limit, clean, out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if out.len() > limit {
                        return;
                    }
                    out.push_str(if index == 0 { "" } else { "," });
                    out.push_str(&quoted(name));
                    out.push(':');
                    self.write_into(member, limit, clean, out);
                }
                out.push('}');
            }
        }
    }
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// What is learnt of a document while it is read.
#[derive(Default)]
struct Counts {
    values: usize,
    depth: usize,
    numbers: Vec<Written>,
}

/// A number that no machine number holds, and the way to it, the last step first.
struct Written {
    text: Box<str>,
    way: Vec<Step>,
}

enum Step {
    Index(usize),
    // Shared: a thousand numbers may stand below one long name.
    Member(Rc<str>),
}

impl Written {
    /// The node's address, unless a later member of the same name took its place.
    fn settle(self, root: &Value) -> Option<(usize, Box<str>)> {
        let mut node = root;
        for step in self.way.iter().rev() {
            node = match step {
                Step::Index(index) => node.get(*index)?,
                Step::Member(name) => node.get(&**name)?,
            };
        }
        let same = node.as_f64() == Some(nearest(&self.text));
        same.then(|| (address(node), self.text))
    }
}

/// The finite machine number that is nearest.
fn nearest(text: &str) -> f64 {
    text.parse::<f64>().unwrap_or_default().clamp(f64::MIN, f64::MAX)
}

/// Why a document cannot be read.
enum Trouble {
    Syntax,
    Deep,
    Large,
}

impl Trouble {
    fn told(&self, text: &str, budget: usize) -> String {
        match self {
            // serde_json says best what is wrong and where.
            Self::Syntax => match serde_json::from_str::<IgnoredAny>(text) {
                Err(error) => format!("the body is not JSON: {error}"),
                Ok(IgnoredAny) => "the body is not JSON: a text in it is malformed".to_owned(),
            },
            Self::Deep => format!("the body's JSON nests deeper than {DEPTH}"),
            Self::Large => {
                format!("the body's JSON takes more than {} MiB to look into", budget >> 20)
            }
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
    left: usize,
    document: Counts,
}

impl<'t> Parser<'t> {
    fn whole(&mut self) -> Result<Value, Trouble> {
        let value = self.value()?;
        self.space();
        if self.at == self.text.len() { Ok(value) } else { Err(Trouble::Syntax) }
    }

    fn value(&mut self) -> Result<Value, Trouble> {
        self.space();
        self.charge(VALUE)?;
        self.document.values += 1;
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) | None => Err(Trouble::Syntax),
        }
    }

    fn nested(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<Value, Trouble>,
    ) -> Result<Value, Trouble> {
        if self.depth == DEPTH {
            return Err(Trouble::Deep);
        }
        self.depth += 1;
        self.at += 1;
        self.document.depth = self.document.depth.max(self.depth);
        let value = inside(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, Trouble> {
        let mut members = Map::new();
        self.space();
        if self.eat(b'}') {
            return Ok(Value::Object(members));
        }
        self.charge(OBJECT)?;
        loop {
            self.space();
            let name = self.string()?;
            self.charge(MEMBER)?;
            self.space();
            if !self.eat(b':') {
                return Err(Trouble::Syntax);
            }
            let before = self.document.numbers.len();
            let member = self.value()?;
            if self.document.numbers.len() > before {
                let name: Rc<str> = Rc::from(name.as_str());
                for number in self.document.numbers.iter_mut().skip(before) {
                    number.way.push(Step::Member(Rc::clone(&name)));
                }
            }
            members.insert(name, member);
            self.space();
            if self.eat(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.eat(b',') {
                return Err(Trouble::Syntax);
            }
        }
    }

    fn array(&mut self) -> Result<Value, Trouble> {
        let mut items = Vec::new();
        self.space();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        self.charge(ARRAY)?;
        loop {
            let before = self.document.numbers.len();
            let item = self.value()?;
            for number in self.document.numbers.iter_mut().skip(before) {
                number.way.push(Step::Index(items.len()));
            }
            items.push(item);
            self.space();
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            if !self.eat(b',') {
                return Err(Trouble::Syntax);
            }
        }
    }

    fn string(&mut self) -> Result<String, Trouble> {
        let start = self.at;
        if !self.eat(b'"') {
            return Err(Trouble::Syntax);
        }
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(0..=0x1f) | None => return Err(Trouble::Syntax),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.charge(self.at - start)?;
        let token = self.text.get(start..self.at).ok_or(Trouble::Syntax)?;
        if escaped {
            return serde_json::from_str(token).map_err(|_| Trouble::Syntax);
        }
        Ok(token.trim_matches('"').to_owned())
    }

    fn number(&mut self) -> Result<Value, Trouble> {
        let start = self.at;
        self.eat(b'-');
        if self.eat(b'0') && self.digits() > 0 {
            return Err(Trouble::Syntax);
        }
        self.digits();
        if !matches!(self.text.as_bytes().get(self.at - 1), Some(b'0'..=b'9')) {
            return Err(Trouble::Syntax);
        }
        if self.eat(b'.') && self.digits() == 0 {
            return Err(Trouble::Syntax);
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            if self.digits() == 0 {
                return Err(Trouble::Syntax);
            }
        }
        let text = self.text.get(start..self.at).ok_or(Trouble::Syntax)?;
        Ok(Value::Number(self.machine(text)))
    }

    /// The machine number of that text; if it is not the same number, the text is kept beside it.
    fn machine(&mut self, text: &'t str) -> Number {
        if let Ok(whole) = text.parse::<i64>() {
            return Number::from(whole);
        }
        if let Ok(whole) = text.parse::<u64>() {
            return Number::from(whole);
        }
        let near = nearest(text);
        let number = Number::from_f64(near).unwrap_or_else(|| Number::from(0));
        // Up to fifteen digits always come back as they were; longer ones are looked at.
        let digits = text.bytes().filter(u8::is_ascii_digit).count();
        let mut shown = String::new();
        let exact = digits <= 15 && !text.contains(['e', 'E'])
            || write!(shown, "{near}").is_ok() && shown == text;
        if !exact && self.document.numbers.len() < EXACT {
            self.document.numbers.push(Written { text: text.into(), way: Vec::new() });
        }
        number
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Trouble> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(Trouble::Syntax);
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Trouble> {
        self.left = self.left.checked_sub(bytes).ok_or(Trouble::Large)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(body: &str) -> String {
        Json::parse(body.as_bytes()).unwrap_err()
    }

    fn number(body: &str, pointer: &str) -> String {
        let json = Json::parse(body.as_bytes()).unwrap();
        let node = json.root().pointer(pointer).unwrap();
        json.number(node).unwrap().into_owned()
    }

    #[test]
    fn what_is_no_json_says_where() {
        assert_eq!(reason(""), "the body is not JSON: it is empty");
        assert_eq!(reason("{\"a\"}"), "the body is not JSON: expected `:` at line 1 column 5");
        assert_eq!(reason("<html>"), "the body is not JSON: expected value at line 1 column 1");
        assert!(reason("\"\\ud800\"").starts_with("the body is not JSON"));
        assert!(Json::parse(b"\xff").unwrap_err().contains("no UTF-8 at byte 0"));
        for body in ["[1,]", "{,}", "01", "1.", ".5", "-", "1e", "tru", "[", "\"\n\"", "1 2", "\"a"]
        {
            assert!(reason(body).starts_with("the body is not JSON: "), "{body}");
        }
    }

    #[test]
    fn numbers_are_as_they_were_written_however_long() {
        assert_eq!(number("9007199254740993", ""), "9007199254740993");
        assert_eq!(number("[0.1,[12345678901234567890123]]", "/1/0"), "12345678901234567890123");
        assert_eq!(number("{\"a\":{\"b\":123.40000000000005}}", "/a/b"), "123.40000000000005");
        assert_eq!(number("1e400", ""), "1e400");
        assert_eq!(number("{\"a\":1e400,\"a\":2.5}", "/a"), "2.5");
    }

    #[test]
    fn depth_and_memory_are_bounded() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(Json::parse(deep(DEPTH).as_bytes()).unwrap().depth(), DEPTH);
        assert_eq!(reason(&deep(DEPTH + 1)), "the body's JSON nests deeper than 128");
        assert_eq!(reason(&"[".repeat(1 << 20)), "the body's JSON nests deeper than 128");
        let costly = format!("[{}{{}}]", "{\"\":0},".repeat(100_000));
        assert_eq!(reason(&costly), "the body's JSON takes more than 18 MiB to look into");
        let costly = format!("[{}0]", "[[[[0]]]],".repeat(100_000));
        assert_eq!(reason(&costly), "the body's JSON takes more than 23 MiB to look into");
    }

    proptest! {
        #[test]
        fn it_agrees_with_serde_json(body in "[\\[\\]{}\",:0-9eE.+a\\\\tru nl-]{0,24}") {
            let ours = Json::parse(body.as_bytes()).map(|json| *json.root);
            let theirs = serde_json::from_str::<Value>(&body);
            // A number beyond the machine's is one to us and an error to serde_json.
            if let Ok(theirs) = theirs {
                let ours = ours.unwrap();
                prop_assert!(ours == theirs || ours.to_string().contains(['.', 'e']));
            } else if !body.contains(['e', 'E']) {
                prop_assert!(ours.is_err());
            }
        }
    }
}
