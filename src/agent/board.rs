//! The agent as its board shows it: from the plan, what was last seen, and the journal.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Agent, lock};
use crate::board::{self, Board, Query, Route, Row, Snapshot};
use crate::clock;
use crate::journal::Filter;
use crate::outbox::OutboxState;
use crate::outcome::{Outcome, Verdict};
use crate::plan::{Plan, Planned};

impl Board for Agent {
    fn snapshot(&self) -> Snapshot {
        let core = &self.core;
        let plan = core.plan.load();
        let row = |planned: &Arc<Planned>| self.row(planned);
        Snapshot {
            region: plan.place.region.clone(),
            stage: plan.place.stage.clone(),
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            now: clock::now(),
            probes: plan.probes.iter().map(row).collect(),
            left_out: plan.left_out.clone(),
            warnings: self.warnings(&plan),
            exporters: lock(&self.outboxes).iter().map(|outbox| route(&outbox.state())).collect(),
        }
    }

    fn metrics(&self, accept: &str) -> (String, String) {
        match self.core.health.page(Some(accept)) {
            Ok((media_type, text)) => (media_type.to_owned(), text),
            Err(error) => ("text/plain; charset=utf-8".to_owned(), format!("# {error}\n")),
        }
    }

    fn ready(&self) -> Result<(), String> {
        match lock(&self.timekeeper).as_ref() {
            Some(_) => Ok(()),
            None => Err("draining: picket is stopping".to_owned()),
        }
    }

    fn outcomes(&self, query: &Query) -> BoxFuture<'_, Result<Vec<Arc<Outcome>>, String>> {
        let journal = Arc::clone(&self.core.journal);
        let Query { probe, limit, failed, since } = query.clone();
        let verdicts = if failed { vec![Verdict::Fail, Verdict::Error] } else { Vec::new() };
        let filter = Filter { since, probe, verdicts, limit: Some(limit) };
        async move {
            let read = tokio::task::spawn_blocking(move || journal.history(&filter)).await;
            let outcomes =
                read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Ok(outcomes.into_iter().map(Arc::new).collect())
        }
        .boxed()
    }

    fn plan(&self) -> serde_json::Value {
        let timekeeper = lock(&self.timekeeper);
        let next = |planned: &Planned| {
            timekeeper.as_ref().and_then(|timekeeper| timekeeper.next_of(&planned.identity()))
        };
        self.core
            .plan
            .load()
            .probes
            .iter()
            .map(|planned| board::planned(planned, next(planned)))
            .collect()
    }
}

impl Agent {
    fn row(&self, planned: &Arc<Planned>) -> Row {
        let identity = planned.identity();
        let (verdict, since) = self.core.roster().last(&identity);
        let seen = lock(&self.core.recent).of(&identity);
        let next_due =
            lock(&self.timekeeper).as_ref().and_then(|timekeeper| timekeeper.next_of(&identity));
        Row {
            name: planned.name.clone(),
            kind: planned.kind,
            labels: Arc::clone(&planned.labels),
            every: planned.every,
            verdict,
            since,
            p50: seen.percentile(0.5),
            p90: seen.percentile(0.9),
            p99: seen.percentile(0.99),
            last: seen.last,
            last_failure: seen.last_failure,
            recent: seen.runs.into(),
            next_due,
            paused: planned.paused,
        }
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let mut warnings = plan.warnings.clone();
        let journal = self.core.journal.state();
        warnings.extend(journal.failing.map(|why| {
            format!(
                "the journal cannot be written ({why}): {} outcomes wait in memory",
                journal.backlog
            )
        }));
        warnings.extend(lock(&self.core.refused).as_ref().map(|why| {
            format!("the last reload was refused and the plan before it goes on: {why}")
        }));
        warnings
    }
}

fn route(state: &OutboxState) -> Route {
    Route {
        name: state.name.clone(),
        depth: state.depth,
        oldest_age: state.oldest_age,
        failing: state.failing.clone(),
    }
}
