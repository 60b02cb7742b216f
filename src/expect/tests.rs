//! The language as people meet it: what is good, what is refused and how that is said.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use insta::assert_snapshot;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::clock::Timestamp;
use crate::outcome::{Ids, Labels};
use crate::phase::Phase;
use crate::place::Place;
use crate::secret::Secrets;

const fn row(name: &'static str, shape: Shape, values: Type, error_type: ErrorType) -> Subject {
    Subject { name, shape, values, error_type, about: "" }
}

const SUBJECTS: &[Subject] = &[
    row("status", Shape::Plain, Type::Number, ErrorType::ExpectStatus),
    row("latency", Shape::Plain, Type::Length, ErrorType::ExpectLatency),
    row("phase", Shape::Phase, Type::Length, ErrorType::ExpectPhase),
    row("header", Shape::Header, Type::Text, ErrorType::ExpectHeader),
    row("body", Shape::Plain, Type::Text, ErrorType::ExpectBody),
    row("size", Shape::Plain, Type::Size, ErrorType::ExpectSize),
    row("json", Shape::Json, Type::Any, ErrorType::ExpectJson),
    row("http.version", Shape::Plain, Type::Version, ErrorType::ExpectVersion),
    row("cert.expires_in", Shape::Plain, Type::Length, ErrorType::ExpectCert),
    row("cert.names", Shape::Plain, Type::Texts, ErrorType::ExpectCert),
    row("authoritative", Shape::Plain, Type::Bool, ErrorType::ExpectValue),
    row("loss", Shape::Plain, Type::Number, ErrorType::ExpectValue),
    row("match", Shape::Named, Type::Text, ErrorType::ExpectMatch),
];

fn scope() -> Scope {
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let ids = Ids::of(&"api".into(), &Labels::default(), &place, Timestamp::from_secs(1), 0);
    Scope::new("api".into(), ids, Arc::new(Secrets::default()))
}

fn reading(body: &str) -> Reading {
    let mut reading = Reading::new("step/0/try/1".to_owned(), Instant::now());
    reading.fact("status", 503_i64);
    reading.fact("latency", 1.234_567);
    reading.fact("size", 2048_i64);
    reading.fact("http.version", "1.1");
    reading.fact("cert.expires_in", -86_400.0);
    reading.fact("cert.names", vec!["example.com".to_owned(), "*.example.com".to_owned()]);
    reading.fact("authoritative", true);
    reading.fact("loss", 0.25);
    reading.facts.insert("match.banner".into(), "220 ready".into());
    reading.timeline.add(Phase::Dns, Instant::now(), Duration::from_micros(1_200));
    for (name, value) in [("content-type", "text/html"), ("via", "1.1 a"), ("via", "1.1 b")] {
        reading.headers.push((name.to_owned(), value.to_owned()));
    }
    reading.body = Some(Bytes::copy_from_slice(body.as_bytes()));
    reading
}

const BODY: &str = r#"{
    "status": "degraded", "n": "4", "count": 10, "gone": null, "up": true, "total": 123.40000000000005,
    "id": 9007199254740993, "huge": 12345678901234567890123, "a b": 1, "$x": 2,
    "list": [1, 2, 3], "tags": ["x", "y"], "deep": {"b": [{"c": 7}]},
    "items": [{"p": 5, "ok": true}, {"p": 8, "ok": true}, {"p": 13, "ok": false}]
}"#;

fn judge_with(text: &str, reading: &Reading, scope: &Scope) -> Option<Failure> {
    let expectation = Expectation::compile(text, SUBJECTS)
        .unwrap_or_else(|mistake| panic!("{text}: {mistake:?}"));
    match expectation.judge(reading, scope) {
        Judgement::Holds => None,
        Judgement::Broken(failure) => Some(failure),
    }
}

/// What a broken one says; nothing when it holds.
fn said(text: &str) -> String {
    judge_with(text, &reading(BODY), &scope()).map_or_else(String::new, |failure| failure.message)
}

fn saids(texts: &[&str]) -> String {
    texts.iter().map(|text| said(text) + "\n").collect()
}

/// A refused line with a caret under what is wrong with it.
fn refused(text: &str) -> String {
    let mistake = match Expectation::compile(text, SUBJECTS) {
        Ok(expectation) => panic!("{text} compiles: {expectation:?}"),
        Err(mistake) => mistake,
    };
    let before = text[..mistake.at.start].chars().count();
    let carets = text[mistake.at].chars().count().max(1);
    format!("{text}\n{}{} {}\n", " ".repeat(before), "^".repeat(carets), mistake.message)
}

fn refuseds(texts: &[&str]) -> String {
    texts.iter().map(|text| refused(text)).collect()
}

#[test]
fn what_holds_holds() {
    for text in [
        "status == 503",
        "status != 200",
        "status not == 200",
        "status not != 503",
        "status >= 500",
        "status in 500..599",
        "status in 503..503",
        "status in [500, 503]",
        "status not in 200..299",
        "status not < 500",
        "status exists",
        "status==503",
        "  status   ==   503  ",
        "latency < 1.3s",
        "latency > 1s234ms",
        "latency in 1s..2s",
        "phase.dns < 5ms",
        "phase.dns == 1.2ms",
        "phase.tls not exists",
        "size == 2KiB",
        "size <= 2048",
        "size in 1KiB..1MiB",
        "http.version == 1.1",
        "http.version == '1.1'",
        "http.version < 2",
        "http.version in [1.0, 1.1]",
        "cert.expires_in < 0s",
        "cert.expires_in == -1d",
        "cert.names == 'example.com'",
        "cert.names contains '*.'",
        "cert.names not == 'example.org'",
        "authoritative == true",
        "authoritative != false",
        "loss <= 0.25",
        "loss in 0..0.5",
        "match.banner starts_with '220'",
        "match[\"banner\"] ends_with 'ready'",
        "match.other not exists",
        "header[\"Content-Type\"] starts_with 'text/'",
        "header['via'] == '1.1 b'",
        "header[\"via\"] not == '1.1 c'",
        "header[\"x\"] not exists",
        "body contains '\"degraded\"'",
        "body contains \"\\\"degraded\\\"\"",
        "body matches 'count\": \\d+,'",
        "body matches '}$'",
        "body matches '}$$'",
        "json.status == 'degraded'",
        "json.status in ['ok', 'degraded']",
        "json.status matches '^deg'",
        "json.count == 10",
        "json.count == 10.0",
        "json.count == 1e1",
        "json.count in 1..10",
        "json.n == '4'",
        "json.n != 4",
        "json.gone == null",
        "json.gone exists",
        "json.gone != 1",
        "json.none not exists",
        "json.up == true",
        "json.total < 123.5",
        "json.total not > 123.5",
        "json.total == 123.40000000000005",
        "json.id > 9007199254740992",
        "json.huge == 12345678901234567890123",
        "json.huge != 12345678901234567890124",
        "json[\"a b\"] == 1",
        "json[\"$['$x']\"] == 2",
        "json.list == [1, 2, 3]",
        "json.list != [1, 2]",
        "json.tags contains 'x'",
        "json.tags not contains 'z'",
        "json.list[-1] == 3",
        "json.deep.b[0].c == 7",
        "json exists",
        "json[\"$.items[*].p\"] in 5..13",
        "json[\"$.items[?@.p < 10].ok\"] == true",
        "json[\"$$..p\"] >= 5",
        "json[\"$.items[?@.p > 50]\"] not exists",
        "json[\"$.items[*].p\"] not == 6",
    ] {
        assert_eq!(said(text), "", "{text}");
    }
}

#[test]
fn a_broken_one_is_quoted_with_what_was_seen() {
    assert_snapshot!(saids(&[
        "status in 200..299",
        "status not exists",
        "latency < 800ms",
        "latency < 1.23s",
        "phase.dns < 1ms",
        "size < 1KiB",
        "size < 1000",
        "http.version == 2",
        "cert.expires_in > 14d",
        "cert.names contains 'example.org'",
        "cert.names not contains 'example'",
        "authoritative == false",
        "loss == 0",
        "header[\"content-type\"] contains 'json'",
        "header[\"via\"] not == '1.1 a'",
        "match.banner contains 'x'",
        "json.status == 'ok'",
        "json.count not == 10",
        "json.gone == 1",
        "json.id == 9007199254740992",
        "json.huge == 1",
        "json.total > 123.5",
        "json.list contains 4",
        "json.deep == 1",
        "json[\"$.items[*].p\"] < 10",
        "json[\"$.items[*].ok\"] not == false",
    ]), @r#"
    status in 200..299  (was 503)
    status not exists  (was 503)
    latency < 800ms  (was 1.23s)
    latency < 1.23s  (was 1.234567s)
    phase.dns < 1ms  (was 1.20ms)
    size < 1KiB  (was 2KiB)
    size < 1000  (was 2048)
    http.version == 2  (was 1.1)
    cert.expires_in > 14d  (was -1d)
    cert.names contains 'example.org'  (was ["example.com","*.example.com"])
    cert.names not contains 'example'  (was ["example.com","*.example.com"])
    authoritative == false  (was true)
    loss == 0  (was 0.25)
    header["content-type"] contains 'json'  (was "text/html")
    header["via"] not == '1.1 a'  (was ["1.1 a","1.1 b"])
    match.banner contains 'x'  (was "220 ready")
    json.status == 'ok'  (was "degraded")
    json.count not == 10  (was 10)
    json.gone == 1  (was null)
    json.id == 9007199254740992  (was 9007199254740993)
    json.huge == 1  (was 12345678901234567890123)
    json.total > 123.5  (was 123.40000000000005)
    json.list contains 4  (was [1,2,3])
    json.deep == 1  (was {"b":[{"c":7}]})
    json["$.items[*].p"] < 10  (was 13, value 3 of 3)
    json["$.items[*].ok"] not == false  (was false, value 3 of 3)
    "#);
}

#[test]
fn a_missing_subject_fails_whatever_is_asked_of_it() {
    assert_snapshot!(saids(&[
        "json.none == 1",
        "json.none exists",
        "json.none == null",
        "json.none not == 10",
        "json.none != 10",
        "json.list[3] not contains 'x'",
        "json.status.more not == 'x'",
        "json[\"$.none\"] not in [1]",
        "phase.tls < 1s",
        "header[\"x\"] not == 'y'",
        "match.other not contains 'x'",
    ]), @r#"
    json.none == 1  (json.none is missing)
    json.none exists  (json.none is missing)
    json.none == null  (json.none is missing)
    json.none not == 10  (json.none is missing)
    json.none != 10  (json.none is missing)
    json.list[3] not contains 'x'  (json.list[3] is missing)
    json.status.more not == 'x'  (json.status.more is missing)
    json["$.none"] not in [1]  (json["$.none"] is missing)
    phase.tls < 1s  (phase.tls is missing)
    header["x"] not == 'y'  (header["x"] is missing)
    match.other not contains 'x'  (match.other is missing)
    "#);
}

#[test]
fn text_is_never_a_number_in_a_body_either() {
    for text in ["json.n < 5", "json.n not < 5", "json.n == 4", "json.n in 1..5", "json.n in [4]"] {
        assert_eq!(said(text), format!("{text}  (was \"4\")"));
    }
    assert_eq!(said("json.count contains '1'"), "json.count contains '1'  (was 10)");
    assert_eq!(said("json.count not contains 'x'"), "json.count not contains 'x'  (was 10)");
}

#[test]
fn a_body_that_is_no_json_cannot_be_judged() {
    for text in ["json.a == 1", "json.a not exists", "json.a exists"] {
        let failure = judge_with(text, &reading("<html>"), &scope()).unwrap();
        assert_eq!(failure.error_type, ErrorType::ExpectJson);
        let why = "the body is not JSON: expected value at line 1 column 1";
        assert_eq!(failure.message, format!("{text}  ({why})"));
    }
    let mut none = reading("");
    none.body = None;
    let failure = judge_with("json.a exists", &none, &scope()).unwrap();
    assert_eq!(failure.message, "json.a exists  (the body is not JSON: it is empty)");
    assert_eq!(judge_with("body == ''", &reading(""), &scope()), None);
}

#[test]
fn a_long_value_is_cut_and_marked() {
    let body = format!("{{\"a\":\"{}\",\"b\":[{}1]}}", "é".repeat(500), "1,".repeat(500));
    for text in ["json.a == 'x'", "body == 'x'", "json.b == 1", "json == 1"] {
        let failure = judge_with(text, &reading(&body), &scope()).unwrap();
        assert!(failure.message.ends_with("…)"), "{}", failure.message);
        assert!(failure.message.chars().count() < 150, "{}", failure.message);
    }
}

#[test]
fn captures_stand_in_text_and_a_missing_one_is_named() {
    let mut scope = scope();
    let failure = judge_with("json.status == '${want}'", &reading(BODY), &scope).unwrap();
    assert_eq!(failure.error_type, ErrorType::ExpectValue);
    scope.capture("want", "degraded".to_owned(), false);
    assert_eq!(judge_with("json.status == '${want}'", &reading(BODY), &scope), None);
    assert_eq!(judge_with("json.status in ['x', '${want}']", &reading(BODY), &scope), None);
    assert_eq!(judge_with("body contains '\"${want}\"'", &reading(BODY), &scope), None);
    assert_eq!(judge_with("body == '$$5 $'", &reading("$5 $"), &scope), None);
}

#[test]
fn no_secret_is_quoted_not_even_half_of_one() {
    let mut scope = scope();
    let secret = "hunter2\"and-some-more";
    scope.capture("token", secret.to_owned(), true);
    let body = serde_json::json!({"t": secret, "long": format!("{}{secret}", "x".repeat(112))});
    let body = body.to_string();
    for text in ["json.t == 'x'", "json.long == 'x'", "json == 1", "body == 'x'"] {
        let failure = judge_with(text, &reading(&body), &scope).unwrap();
        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
    }
}

#[test]
fn a_jsonpath_has_bounded_work() {
    let wide = format!("[[[[{}0]]]]", "0,".repeat(200_000));
    let failure = judge_with("json[\"$..*..*..*\"] == 0", &reading(&wide), &scope()).unwrap();
    assert_snapshot!(failure.message, @r#"json["$..*..*..*"] == 0  (the body's JSON has too many values for this JSONPath: 200005, 4 deep)"#);
    assert_eq!(judge_with("json[\"$[0][0][0][0]\"] == 0", &reading(&wide), &scope()), None);
}

#[test]
fn an_unknown_subject_says_which_is_near() {
    assert_snapshot!(refuseds(&[
        "",
        "latancy < 1s",
        "Status == 200",
        "headers[\"x\"] exists",
        "jsn.a == 1",
        "cert.expire_in > 1d",
        "status.code == 1",
        "status_code == 200",
        "colour == 1",
        "phase.tsl < 1s",
        "phase < 1s",
        "phase.warp < 1s",
        "header == 'x'",
        "header.via == 'x'",
        "header[via] == 'x'",
        "match == 'x'",
        "not status == 200",
        "== 200",
    ]), @r#"

    ^ nothing is expected: write a subject, an operator and a value, such as `status == 200`
    latancy < 1s
    ^^^^^^^ no subject `latancy` here: did you mean `latency`?
    Status == 200
    ^^^^^^ no subject `Status` here: did you mean `status`?
    headers["x"] exists
    ^^^^^^^ no subject `headers` here: did you mean `header`?
    jsn.a == 1
    ^^^^^ no subject `jsn.a` here: did you mean `json`?
    cert.expire_in > 1d
    ^^^^^^^^^^^^^^ no subject `cert.expire_in` here: did you mean `cert.expires_in`?
    status.code == 1
    ^^^^^^^^^^^ `status` has no parts: write `status` alone
    status_code == 200
    ^^^^^^^^^^^ no subject `status_code` here: did you mean `status`?
    colour == 1
    ^^^^^^ no subject `colour` here: write one of status, latency, phase.NAME, header["name"], body, size, json.a.b[0], http.version, cert.expires_in, cert.names, authoritative, loss, match["NAME"]
    phase.tsl < 1s
          ^^^ no phase `tsl`: did you mean `tls`?
    phase < 1s
    ^^^^^ `phase` needs a name: write phase.NAME
    phase.warp < 1s
          ^^^^ no phase `warp`: write phase. and one of dns, connect, proxy, tls, auth, send, wait, receive, deliver
    header == 'x'
    ^^^^^^ `header` needs a name: write header["name"]
    header.via == 'x'
          ^^^^ write header["via"]
    header[via] == 'x'
          ^^^^^ write header["via"]
    match == 'x'
    ^^^^^ `match` needs a name: write match["NAME"]
    not status == 200
    ^^^ `not` stands before the operator: write such as `status not == 200`
    == 200
    ^^ a subject stands first: write one of status, latency, phase.NAME, header["name"], body, size, json.a.b[0], http.version, cert.expires_in, cert.names, authoritative, loss, match["NAME"]
    "#);
}

#[test]
fn an_unknown_operator_says_what_is_meant() {
    assert_snapshot!(refuseds(&[
        "status",
        "status not",
        "status = 200",
        "status === 200",
        "status is 200",
        "body =~ 'x'",
        "body includes 'x'",
        "body startswith 'x'",
        "body containz 'x'",
        "json.a !exists",
        "status between 1..2",
        "status frobs 200",
        "status not not == 200",
        "status 200",
        "body contains \"a\" and status == 200",
        "status == 200 || status == 201",
        "json.a exists 1",
    ]), @r#"
    status
          ^ no operator after `status`: write such as `status == 200`
    status not
              ^ no operator after `not`: write such as `status not == 200`
    status = 200
           ^ no operator `=`: did you mean `==`?
    status === 200
           ^^^ no operator `===`: did you mean `==`?
    status is 200
           ^^ no operator `is`: did you mean `==`?
    body =~ 'x'
         ^^ no operator `=~`: did you mean `matches`?
    body includes 'x'
         ^^^^^^^^ no operator `includes`: did you mean `contains`?
    body startswith 'x'
         ^^^^^^^^^^ no operator `startswith`: did you mean `starts_with`?
    body containz 'x'
         ^^^^^^^^ no operator `containz`: did you mean `contains`?
    json.a !exists
           ^^^^^^^ no operator `!exists`: did you mean `not exists`?
    status between 1..2
           ^^^^^^^ no operator `between`: did you mean `in`?
    status frobs 200
           ^^^^^ no operator `frobs`: write one of == != < <= > >= in contains matches starts_with ends_with exists, with `not` before it or without
    status not not == 200
               ^^^ one `not` is enough: leave out the second
    status 200
           ^^^ no operator before `200`: write such as `== 200`
    body contains "a" and status == 200
                      ^^^^^^^^^^^^^^^^^ `and status == 200` is too much: one expectation is one line: write what follows as another, or leave it out
    status == 200 || status == 201
                  ^^^^^^^^^^^^^^^^ `|| status == 201` is too much: one expectation is one line: write what follows as another, or leave it out
    json.a exists 1
                  ^ `1` is too much: one expectation is one line: write what follows as another, or leave it out
    "#);
}

#[test]
fn what_is_no_number_says_what_to_write() {
    assert_snapshot!(refuseds(&[
        "latency < potato",
        "latency < 800",
        "latency < '800ms'",
        "latency < 16KiB",
        "latency < 5sec",
        "latency in 1..2",
        "status == '200'",
        "status == ok",
        "status == 200ms",
        "status == true",
        "status == null",
        "status < '500'",
        "status matches '2..'",
        "status contains 2",
        "size < 10s",
        "size < 16XB",
    ]), @r"
    latency < potato
              ^^^^^^ `potato` is no length of time: write a number and a unit (ms, s, m, h, d, w), such as 800ms
    latency < 800
              ^^^ `latency` is a length of time: write the unit, such as 800ms or 800s
    latency < '800ms'
              ^^^^^^^ `latency` is a length of time, and text never is: write 800ms without quotes
    latency < 16KiB
              ^^^^^ `16KiB` is no length of time: write a number and a unit (ms, s, m, h, d, w), such as 800ms
    latency < 5sec
              ^^^^ `5sec` is no length of time: write a number and a unit (ms, s, m, h, d, w), such as 800ms
    latency in 1..2
               ^ `latency` is a length of time: write the unit, such as 1ms or 1s
    status == '200'
              ^^^^^ `status` is a number, and text never is: write 200 without quotes
    status == ok
              ^^ `ok` is no number, and `status` is one: write such as 200
    status == 200ms
              ^^^^^ `status` has no unit: write a number alone, such as 200
    status == true
              ^^^^ `status` is a number, never true
    status == null
              ^^^^ `status` is never null: write `status not exists`
    status < '500'
             ^^^^^ `status` is a number, and text never is: write 500 without quotes
    status matches '2..'
           ^^^^^^^ `matches` does not fit `status`, which is a number: write ==, !=, <, <=, >, >=, in or exists
    status contains 2
           ^^^^^^^^ `contains` does not fit `status`, which is a number: write ==, !=, <, <=, >, >=, in or exists
    size < 10s
           ^^^ `10s` is no size: write a number of bytes, or a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 16KiB
    size < 16XB
           ^^^^ `16XB` is no size: write a number of bytes, or a number and a unit (B, KiB, MiB, GiB, kB, MB, GB), such as 16KiB
    ");
}

#[test]
fn a_value_of_another_type_says_what_to_write() {
    assert_snapshot!(refuseds(&[
        "body < 'x'",
        "body == 5",
        "body == ok",
        "body contains ok",
        "body in 1..2",
        "body in 'a'",
        "http.version == two",
        "http.version matches '1'",
        "authoritative == yes",
        "authoritative == True",
        "authoritative > false",
        "authoritative == 1",
        "cert.names < 'x'",
        "json.a == ok",
        "json.a == None",
        "json.a == NULL",
        "json.a < 'x'",
        "json.a < '5'",
        "json.a < 800ms",
        "json.a < true",
        "json.a starts_with 5",
    ]), @r"
    body < 'x'
         ^ `<` does not fit `body`, which is text: write ==, !=, in, contains, matches, starts_with, ends_with or exists
    body == 5
            ^ `body` is text, and a number never is: write '5'
    body == ok
            ^^ text stands in quotes: write 'ok'
    body contains ok
                  ^^ text stands in quotes: write 'ok'
    body in 1..2
            ^^^^ a range has no sense for `body`, which is text: write a list, such as ['a', 'b']
    body in 'a'
            ^^^ `in` asks for a range or a list: write such as `in 200..299` or `in [204, 404]`
    http.version == two
                    ^^^ `two` is no version: write such as 1.1 or 2
    http.version matches '1'
                 ^^^^^^^ `matches` does not fit `http.version`, which is a version: write ==, !=, <, <=, >, >=, in or exists
    authoritative == yes
                     ^^^ `yes` is neither true nor false: write `authoritative == true` or `authoritative == false`
    authoritative == True
                     ^^^^ write true, in lower case
    authoritative > false
                  ^ `>` does not fit `authoritative`, which is true or false: write ==, != or exists
    authoritative == 1
                     ^ `1` is neither true nor false: write `authoritative == true` or `authoritative == false`
    cert.names < 'x'
               ^ `<` does not fit `cert.names`, which is a list of texts: write ==, !=, in, contains, matches, starts_with, ends_with or exists
    json.a == ok
              ^^ text stands in quotes: write 'ok'
    json.a == None
              ^^^^ text stands in quotes: write 'None'
    json.a == NULL
              ^^^^ write null, in lower case
    json.a < 'x'
             ^^^ `<` compares numbers: write such as `json.a < 10`
    json.a < '5'
             ^^^ `<` compares numbers, and text is never one: write 5 without quotes
    json.a < 800ms
             ^^^^^ `json.a` has no unit: write a number alone, such as 800
    json.a < true
             ^^^^ `<` compares numbers: write such as `json.a < 10`
    json.a starts_with 5
                       ^ `starts_with` asks for text in quotes: write such as `starts_with 'ok'`
    ");
}

#[test]
fn a_malformed_value_is_shown_where_it_stands() {
    assert_snapshot!(refuseds(&[
        "status ==",
        "status in",
        "status in 299..200",
        "status in 200..",
        "status in 200...299",
        "status in 200..=299",
        "status == 200..299",
        "status == [200]",
        "status in 200",
        "status in []",
        "status in [200 201]",
        "status in [200,",
        "status in [200, '201']",
        "latency in 2s..1s",
        "status == %",
        "body == 'x",
        "body == \"it's",
        "body == 'a\\qb'",
        "body == '${'",
        "body matches '('",
        "body matches 'a{1000}{1000}'",
        "body matches '${order}'",
        "json.a == [[[[[[[[[1]]]]]]]]]",
        "json. == 1",
        "json.a[x] == 1",
        "json.a[0 == 1",
        "json[\"$.a[\"] == 1",
        "json[\"$.a[?@.b ==]\"] == 1",
        "json.a[\"$.b\"] == 1",
        "json[\"$.a\"].b == 1",
        "json[\"$[?match(@.a, 'x')]\"] exists",
    ]), @r#"
    status ==
             ^ no value after `==`: write such as `== 200`
    status in
             ^ no value after `in`: write such as `in 200..299` or `in [204, 404]`
    status in 299..200
              ^^^^^^^^ the range is reversed: write 200..299
    status in 200..
              ^^^^^ a range has two ends: write such as 200..299
    status in 200...299
                 ^^^ a range holds both of its ends: write two dots, such as 200..299
    status in 200..=299
                 ^^^ a range holds both of its ends: write two dots, such as 200..299
    status == 200..299
              ^^^^^^^^ a range stands after `in`: write such as `status in 200..299`
    status == [200]
              ^^^^^ a list stands after `in`: write `status in […]`
    status in 200
              ^^^ `in` asks for a range or a list: write such as `in 200..299` or `in [204, 404]`
    status in []
              ^^ nothing is in an empty list: write such as [204, 404]
    status in [200 201]
                   ^^^^ a list's values stand between commas and end with ]: write such as [204, 404]
    status in [200,
              ^^^^^ a list without its end: write the closing ]
    status in [200, '201']
                    ^^^^^ `status` is a number, and text never is: write 201 without quotes
    latency in 2s..1s
               ^^^^^^ the range is reversed: write 1s..2s
    status == %
              ^ `%` is no value: write a number, 'text', true, false, null, a list or a range
    body == 'x
            ^^ text without its end: write the closing '
    body == "it's
            ^^^^^ text without its end: write the closing "
    body == 'a\qb'
              ^^ no escape `\q`: write \\ for a backslash
    body == '${'
            ^^^^ `${` without its `}`: write $$ for a dollar, or ${name} for a variable
    body matches '('
                 ^^^ '(' is no pattern: unclosed group
    body matches 'a{1000}{1000}'
                 ^^^^^^^^^^^^^^^ 'a{1000}{1000}' is too large a pattern: write a smaller one, such as with fewer repetitions
    body matches '${order}'
                 ^^^^^^^^^^ a pattern is compiled when the file is loaded, so it cannot hold what only the run knows: use contains, starts_with or ends_with
    json.a == [[[[[[[[[1]]]]]]]]]
                      ^ lists nest at most 8 deep
    json. == 1
        ^ a member's name stands after the dot: write json.a, or json["$.…"] for a JSONPath
    json.a[x] == 1
           ^^ write an index such as json.a[0], a member in quotes, or json["$.…"] for a JSONPath
    json.a[0 == 1
          ^^ `[` without its `]`: write the closing ]
    json["$.a["] == 1
            ^^ no JSONPath (RFC 9535): it cannot be read from here on (character 3)
    json["$.a[?@.b ==]"] == 1
                  ^^^^ no JSONPath (RFC 9535): in long-hand segment, expected closing ']' (character 9)
    json.a["$.b"] == 1
           ^^^^^ a JSONPath starts at the body's root: write json["$.…"]
    json["$.a"].b == 1
               ^^ nothing follows a JSONPath: write the whole way inside its quotes
    json["$[?match(@.a, 'x')]"] exists
            ^^^^^^^^^^^^^^^^^ no JSONPath (RFC 9535): match() and search() are left out: write the operator `matches` after it (character 3)
    "#);
}

#[test]
fn a_line_without_end_is_refused() {
    let long = format!("body == '{}'", "x".repeat(5000));
    assert!(Expectation::compile(&long, SUBJECTS).unwrap_err().message.contains("4096"));
}

fn capture(text: &str, reading: &Reading) -> Result<String, String> {
    let capture = Capture::compile(text, SUBJECTS).unwrap();
    capture.find(reading).map_err(|failure| {
        assert!(failure.judged());
        failure.message
    })
}

#[test]
fn a_capture_is_the_value_as_text() {
    let reading = reading(BODY);
    for (text, value) in [
        ("json.status", "degraded"),
        ("json.count", "10"),
        ("json.huge", "12345678901234567890123"),
        ("json.up", "true"),
        ("json.deep", r#"{"b":[{"c":7}]}"#),
        ("json[\"$.items[?@.p == 8].ok\"]", "true"),
        ("status", "503"),
        ("header[\"Content-Type\"]", "text/html"),
        ("latency", "1.234567"),
        ("phase.dns", "0.0012"),
        ("match.banner", "220 ready"),
        ("body", BODY),
    ] {
        assert_eq!(capture(text, &reading).as_deref(), Ok(value), "{text}");
    }
}

#[test]
fn a_capture_that_finds_nothing_or_too_much_says_so() {
    let reading = reading(BODY);
    let told: String = ["json.none", "json.gone", "json[\"$.items[*].p\"]", "header[\"via\"]"]
        .iter()
        .map(|text| capture(text, &reading).unwrap_err() + "\n")
        .collect();
    assert_snapshot!(told, @r#"
    json.none  (json.none is missing)
    json.gone  (was null)
    json["$.items[*].p"]  (found 3 values where one is meant)
    header["via"]  (found 2 values where one is meant)
    "#);
    let mistake = Capture::compile("json.id == 1", SUBJECTS).unwrap_err();
    assert_eq!(mistake.at, 8..12);
    assert!(mistake.message.contains("a capture is a subject alone"), "{}", mistake.message);
}

#[test]
fn a_fact_is_shown_as_json_would() {
    assert_eq!(show(&Fact::from("a\"b")), r#""a\"b""#);
    assert_eq!(show(&Fact::Integer(503)), "503");
    assert_eq!(show(&Fact::Number(0.5)), "0.5");
    assert_eq!(show(&vec!["a".to_owned(), "b".to_owned()].into()), r#"["a","b"]"#);
}

#[test]
fn the_manual_has_no_line_that_does_not_compile() {
    let manual = include_str!("../../docs/expectations.md");
    let blocks = manual.split("```text\n").skip(1).filter_map(|block| block.split("```").next());
    let lines: Vec<_> = blocks.flat_map(str::lines).filter(|line| !line.is_empty()).collect();
    assert!(lines.len() >= 10, "the manual has ten examples at the least");
    for line in lines {
        // What stands in brackets after two spaces is what a broken one says.
        let line = line.split("  (was").next().unwrap_or(line);
        Expectation::compile(line, SUBJECTS)
            .unwrap_or_else(|mistake| panic!("{line}: {mistake:?}"));
    }
}

proptest! {
    #[test]
    fn compiling_never_panics(text in any::<String>()) {
        drop(Expectation::compile(&text, SUBJECTS));
        drop(Capture::compile(&text, SUBJECTS));
    }

    #[test]
    fn a_mistake_stands_within_the_text(
        text in "(status|latency|json\\.a|body|header\\[\"x\"\\]|json\\[\"\\$) ?(not )?(==|<|in|matches|contains|exists)? ?['\"a-z0-9.é\\[\\]${}()\\\\ -]{0,20}",
    ) {
        if let Err(mistake) = Expectation::compile(&text, SUBJECTS) {
            prop_assert!(text.get(mistake.at.clone()).is_some(), "{mistake:?} in {text:?}");
            prop_assert!(!mistake.message.is_empty());
        }
    }

    #[test]
    fn judging_never_panics(body in any::<Vec<u8>>(), json in "[\\[\\]{}\",:0-9eE.+ab\\\\ -]{0,40}") {
        for body in [body, json.into_bytes()] {
            let mut reading = reading("");
            reading.body = Some(body.into());
            for text in ["json.a == 1", "json[\"$..a\"] not in [1, 'x']", "body matches 'a+b'", "json > 5"] {
                judge_with(text, &reading, &scope());
            }
        }
    }

    #[test]
    fn a_jsonpath_never_panics(
        path in "(\\.\\.|\\.[a-z*]|\\[(-?[0-9]{0,17}:-?[0-9]{0,17}:-?[0-9]{0,17}|-?[0-9]{1,17}|\\*|'[a-z]{1,6}'|\\?@\\.p [<>=]{1,2} (1|-1e9|@.p|length\\(@\\)|count\\(@..p\\)))\\]){1,5}",
    ) {
        if let Ok(expectation) = Expectation::compile(&format!("json[\"${path}\"] == 1"), SUBJECTS) {
            expectation.judge(&reading(BODY), &scope());
        }
    }

    #[test]
    fn numbers_in_a_body_compare_as_whole_numbers_do(seen in any::<i128>(), meant in any::<i128>()) {
        let reading = reading(&format!("{{\"n\":{seen}}}"));
        let holds = |text: String| judge_with(&text, &reading, &scope()).is_none();
        prop_assert_eq!(holds(format!("json.n < {meant}")), seen < meant);
        prop_assert_eq!(holds(format!("json.n >= {meant}")), seen >= meant);
        let same = holds(format!("json.n == {seen}"));
        prop_assert!(same);
    }
}
