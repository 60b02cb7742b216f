//! A step's condition: `order exists`, `not order exists`, `'${plan}' == 'gold'`.

use super::When;
use crate::near::instead;
use crate::template::Template;

/// Reads a condition; of what is none, what is wrong and what to write instead.
pub(super) fn read(text: &str, captures: &[String]) -> Result<When, (String, String)> {
    let text = text.trim();
    if let Some((left, right, same)) = sides(text) {
        if let (Some(left), Some(right)) = (side(left), side(right)) {
            return Ok(When::Same(left, right, same));
        }
        let advice = "put both sides in quotes, such as '${plan}' == 'gold'";
        return Err((format!("{text} is no condition"), advice.to_owned()));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let (name, when): (_, fn(String) -> When) = match words.as_slice() {
        [name, "exists"] => (*name, When::Captured),
        ["not", name, "exists"] | [name, "not", "exists"] => (*name, When::NotCaptured),
        _ => {
            let advice = "write \"order exists\", \"not order exists\" or \"'${plan}' == 'gold'\"";
            return Err((format!("{text:?} is no condition"), advice.to_owned()));
        }
    };
    if captures.iter().any(|capture| capture == name) {
        return Ok(when(name.to_owned()));
    }
    let advice = match captures {
        [] => "write a capture in an earlier step".to_owned(),
        captures => instead(name, captures.iter().map(String::as_str), "captures by then"),
    };
    Err((format!("no step before this one captures `{name}`"), advice))
}

/// The two sides of a comparison outside quotes, and whether they must be the same.
fn sides(text: &str) -> Option<(&str, &str, bool)> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match quote {
            Some(open) if open == letter => quote = None,
            Some(_) => {}
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            None => {
                let (left, rest) = text.split_at(at);
                let same = rest.strip_prefix("==").map(|right| (left, right, true));
                let other = || rest.strip_prefix("!=").map(|right| (left, right, false));
                if let Some(sides) = same.or_else(other) {
                    return Some(sides);
                }
            }
        }
    }
    None
}

/// A text in quotes.
fn side(text: &str) -> Option<Template> {
    let text = text.trim();
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    Template::parse(inner('\'').or_else(|| inner('"'))?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_a_capture_or_a_comparison() {
        let captures = ["order".to_owned()];
        let read = |text| read(text, &captures);
        assert_eq!(read("order exists"), Ok(When::Captured("order".to_owned())));
        assert_eq!(read("not order exists"), Ok(When::NotCaptured("order".to_owned())));
        let (left, right) = (Template::plain("a != b"), Template::plain("gold"));
        assert_eq!(read("'a != b' == \"gold\""), Ok(When::Same(left.clone(), right.clone(), true)));
        assert_eq!(read("'a != b' != 'gold'"), Ok(When::Same(left, right, false)));
        for text in ["", "order", "ordr exists", "order == 'a'", "'a' == b"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
