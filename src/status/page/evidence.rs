//! What the last failure left to look at, as far as the page has room for it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::text::{Escaped, moment};
use crate::clock::Timestamp;
use crate::outcome::{Evidence, Fact, Outcome};

/// The evidence of `failure`, if the page has room for it; then there is less room for the next.
pub(super) fn fitting<'a>(failure: &'a Outcome, room: &mut usize) -> Option<&'a Evidence> {
    let evidence = failure.evidence.as_deref()?;
    *room = room.checked_sub(size(evidence))?;
    Some(evidence)
}

/// Where the evidence is that the page has no room for.
pub(super) fn write_elsewhere(html: &mut String, failure: &Outcome) -> fmt::Result {
    let probe: String =
        url::form_urlencoded::byte_serialize(failure.probe.as_str().as_bytes()).collect();
    writeln!(
        html,
        "<p>Too much for this page: <a href=\"/api/outcomes?probe={probe}&amp;failed=1&amp;limit=1\">the record</a> has it.</p>"
    )
}

/// What is said in a word or two.
pub(super) fn write_marks(
    html: &mut String,
    failure: &Outcome,
    evidence: &Evidence,
    now: Timestamp,
) -> fmt::Result {
    let Evidence {
        expectation,
        peer,
        certificate,
        more,
        request: _,
        response: _,
        body: _,
        body_left_out: _,
    } = evidence;
    writeln!(
        html,
        "<h4>Evidence of the failure of {}</h4>\n<dl class=\"facts\">",
        moment(failure.started, now)
    )?;
    for (name, value) in [("expectation", expectation), ("peer", peer)] {
        if let Some(value) = value {
            write!(html, "<dt>{name}</dt><dd><code>{}</code></dd>", Escaped(value))?;
        }
    }
    write!(html, "<dt>run</dt><dd><code>{}</code></dd>", Escaped(&failure.run))?;
    write!(html, "<dt>trace</dt><dd><code>{}</code></dd>", Escaped(&failure.trace_id))?;
    write_facts(html, more)?;
    html.write_str("</dl>\n")?;
    if let Some(certificate) = certificate {
        html.write_str("<h4>certificate</h4><dl class=\"facts\">")?;
        write_facts(html, certificate)?;
        html.write_str("</dl>\n")?;
    }
    Ok(())
}

/// What went to the target and what came back.
pub(super) fn write_texts(html: &mut String, evidence: &Evidence) -> fmt::Result {
    let Evidence { request, response, body, body_left_out, .. } = evidence;
    for (name, text) in [("request", request), ("response", response), ("body", body)] {
        if let Some(text) = text {
            writeln!(html, "<h4>{name}</h4><pre>{}</pre>", Escaped(text))?;
        }
    }
    match body_left_out {
        Some(bytes) if *bytes > 0 => {
            writeln!(html, "<p class=\"dim\">{bytes} more bytes of the body are not kept</p>")
        }
        _ => Ok(()),
    }
}

fn write_facts(html: &mut String, facts: &BTreeMap<String, Fact>) -> fmt::Result {
    for (name, fact) in facts {
        write!(html, "<dt>{}</dt><dd><code>", Escaped(name))?;
        write_fact(html, fact)?;
        html.write_str("</code></dd>")?;
    }
    Ok(())
}

fn write_fact(html: &mut String, fact: &Fact) -> fmt::Result {
    match fact {
        Fact::Bool(yes) => write!(html, "{yes}"),
        Fact::Integer(number) => write!(html, "{number}"),
        Fact::Number(number) => write!(html, "{number}"),
        Fact::Text(text) => write!(html, "{}", Escaped(text)),
        Fact::List(facts) => {
            for (at, fact) in facts.iter().enumerate() {
                html.write_str(if at == 0 { "" } else { ", " })?;
                write_fact(html, fact)?;
            }
            Ok(())
        }
    }
}

/// The characters of all its parts.
fn size(evidence: &Evidence) -> usize {
    let texts = [
        &evidence.request,
        &evidence.response,
        &evidence.body,
        &evidence.expectation,
        &evidence.peer,
    ];
    let facts = evidence.certificate.iter().chain([&evidence.more]).flatten();
    texts.into_iter().flatten().map(String::len).sum::<usize>()
        + facts.map(|(name, fact)| name.len() + weight(fact)).sum::<usize>()
}

fn weight(fact: &Fact) -> usize {
    match fact {
        Fact::Bool(_) | Fact::Integer(_) | Fact::Number(_) => 24,
        Fact::Text(text) => text.len(),
        Fact::List(facts) => facts.iter().map(weight).sum(),
    }
}
