//! How far the measured duration is from the true one, with a target that holds for exactly 100 ms.

use std::error::Error;

use serde_json::Value;

use crate::agent;
use crate::blackbox::Blackbox;
use crate::target::Target;

/// Seconds too many, of each run.
pub(crate) type Errors = Vec<f64>;

/// Of picket: so many rounds of so many probes that start together.
pub(crate) async fn of_picket(
    target: &Target,
    together: usize,
    rounds: u32,
) -> Result<Errors, Box<dyn Error>> {
    let probe = |index| {
        format!("[probe.p{index}]\nhttp = {{ url = 'http://{}/p{index}' }}\n", target.exact)
    };
    let outcomes = agent::check(&(0..together).map(probe).collect::<String>(), rounds).await?;
    let held = target.held().await?;
    let measured = outcomes.iter().filter(|outcome| outcome["verdict"] == "pass");
    let error = |outcome: &Value| {
        Some(outcome["duration_s"].as_f64()? - held.get(outcome["trace_id"].as_str()?)?)
    };
    Ok(measured.filter_map(error).collect())
}

/// Of the peer: its probes carry no trace, so the path tells them apart.
pub(crate) async fn of_blackbox(
    target: &Target,
    blackbox: &Blackbox,
    together: usize,
    rounds: u32,
) -> Result<Errors, Box<dyn Error>> {
    let mut errors = Errors::new();
    for round in 0..rounds {
        let url = |index| format!("http://{}/b{round}-{together}-{index}", target.exact);
        let measured = blackbox.durations((0..together).map(url).collect()).await?;
        let held = target.held().await?;
        errors.extend(measured.iter().filter_map(|(url, seconds)| {
            let path = &url[url.rfind('/')?..];
            Some(seconds - held.get(path)?)
        }));
    }
    Ok(errors)
}
