//! The kind against real sockets: servers that behave, and a table of those that do not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use self::server::{Act, Server};
use super::{Ground, Http, Probe, Settings};
use crate::clock::Timestamp;
use crate::failure::ErrorType;
use crate::outcome::{Fact, Ids, Labels};
use crate::phase::Phase;
use crate::place::Place;
use crate::reading::Reading;
use crate::secret::Secrets;
use crate::setting::Refused;
use crate::template::Scope;

mod answers;
mod hostile;
mod keep;
mod redirects;
mod server;
mod settings;

/// The kind with these keys.
fn http(keys: &str) -> Result<Http, Refused> {
    let mut http = Http::from(toml::from_str::<Settings>(keys).expect(keys));
    http.ready(&Ground::default()).map(|()| http)
}

fn scope() -> Scope {
    let place = Place { region: "eu-west-1".into(), stage: "prod".into() };
    let due = Timestamp::from_secs(0x6920_0000);
    let ids = Ids::of(&"orders".into(), &Labels::default(), &place, due, 0);
    Scope::new("orders".into(), ids, Arc::new(Secrets::default()))
}

/// What came of one attempt, driven as a journey drives it: the error type, `pass` when there is none.
async fn attempt(http: &Http, limit: Duration) -> (&'static str, Reading) {
    let scope = scope();
    let mut reading = Reading::new("step/0".to_owned(), Instant::now());
    let result = timeout(limit, http.look(&scope, &mut reading)).await;
    let error_type = match result {
        Ok(Ok(())) => return ("pass", reading),
        Ok(Err(failure)) => {
            reading.evidence.more.insert("message".into(), failure.message.into());
            failure.error_type
        }
        Err(_) => reading.timeline.open().map_or(ErrorType::JourneyTimeout, Phase::timeout),
    };
    (error_type.as_str(), reading)
}

/// Asks a server that answers once, with these further keys.
async fn ask(acts: Vec<Act>, keys: &str) -> (&'static str, Reading) {
    let server = Server::start(vec![acts]).await;
    let http = http(&format!("url = 'http://{}/x'\n{keys}", server.address)).unwrap();
    attempt(&http, Duration::from_secs(20)).await
}

fn fact<'a>(reading: &'a Reading, name: &str) -> &'a Fact {
    reading.facts.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", reading.facts))
}
