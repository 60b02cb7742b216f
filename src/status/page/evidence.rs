//! What the last failure left to look at, as far as the page has room for it.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use super::text::{Escaped, moment};
use crate::clock::Timestamp;
use crate::outcome::{Evidence, Fact, Outcome};

/// Writes the evidence of `failure`; `room` is how many characters of it the page still takes.
pub(super) fn write_evidence(
    html: &mut String,
    failure: &Outcome,
    now: Timestamp,
    room: &mut usize,
) -> fmt::Result {
    let Some(evidence) = &failure.evidence else { return Ok(()) };
    writeln!(html, "<h4>Evidence of the failure of {}</h4>", moment(failure.started, now))?;
    let size = size(evidence);
    if size > *room {
        let probe: String =
            url::form_urlencoded::byte_serialize(failure.probe.as_str().as_bytes()).collect();
        return writeln!(
            html,
            "<p>Too much for this page: <a href=\"/api/outcomes?probe={probe}&amp;failed=1&amp;limit=1\">the record</a> has it.</p>"
        );
    }
    *room -= size;
    let Evidence { request, response, body, body_left_out, expectation, peer, certificate, more } =
        evidence.as_ref();
    html.write_str("<dl class=\"facts\">")?;
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
    for (name, text) in [("request", request), ("response", response), ("body", body)] {
        if let Some(text) = text {
            writeln!(html, "<h4>{name}</h4><pre>{}</pre>", Escaped(text))?;
        }
    }
    match body_left_out {
        Some(bytes) if *bytes > 0 => writeln!(html, "<p class=\"dim\">{bytes} more bytes</p>"),
        _ => Ok(()),
    }
}

fn write_facts(html: &mut String, facts: &BTreeMap<String, Fact>) -> fmt::Result {
    for (name, fact) in facts {
        write!(
            html,
            "<dt>{}</dt><dd><code>{}</code></dd>",
            Escaped(name),
            Escaped(&crate::expect::show(fact))
        )?;
    }
    Ok(())
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
