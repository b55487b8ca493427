//! `oxpecker service list`.

use std::{collections::BTreeMap, path::Path, time::Duration};

use jiff::Timestamp;
use journal::{EventQuery, Reader};
use model::{EventKind, ServiceName, reading::Health};
use services::{
    execute::{Executor, Round, intent},
    graph::Id,
    state::State,
};

use super::{Place, block_on, failure, look, looked_for, words};
use crate::{
    cli::{Global, LookArgs},
    exit::{FINDING, FINE, Outcome},
    output,
};

/// Acts of this long ago still are told.
const ACTS_WITHIN: Duration = Duration::from_secs(1800);

/// How each service is.
pub fn list(global: &Global, args: &LookArgs) -> Outcome {
    let place = Place::load(global)?;
    let mut executor = place.watch()?;
    let round = block_on(look(&mut executor, args))??;
    let stopped = intent::load(&place.dir).map_err(failure)?;
    let changed = changes(&place.state_dir);
    let view = View { executor: &executor, round: &round };
    let since = |id: Id| -> Option<Timestamp> {
        let name = executor.graph().name(id);
        let status = &round.statuses[id.index()];
        if let State::Stopped { .. } = status.state {
            return stopped.get(name).map(|stopped| stopped.since);
        }
        let (health, at) = changed.get(name)?;
        let agrees = (*health == Health::Healthy) == words::is_well(status);
        agrees.then_some(*at)
    };
    let well = round.statuses.iter().filter(|status| words::is_well(status)).count();
    let document: Vec<_> = executor.graph().ids().map(|id| view.document(id, since(id))).collect();
    output::result(global.output, "service_list", &serde_json::json!({ "services": document }), || {
        output::prose(&view.text(since, args))
    })?;
    Ok(if well == round.statuses.len() { FINE } else { FINDING })
}

/// When each service was last seen to become healthy or not, by the guard's journal; nothing where there is none.
fn changes(state_dir: &Path) -> BTreeMap<ServiceName, (Health, Timestamp)> {
    let query = EventQuery { kinds: vec!["service_changed".to_owned()], newest: true, ..EventQuery::default() };
    let Ok(events) = Reader::open(state_dir).and_then(|mut reader| reader.events(&query)) else {
        return BTreeMap::new();
    };
    let change = |event: model::Event| match event.kind {
        EventKind::ServiceChanged { service, health, .. } => Some((service, (health, event.at.wall))),
        _ => None,
    };
    // In order: the last one counts.
    events.events.into_iter().filter_map(change).collect()
}

struct View<'a> {
    executor: &'a Executor,
    round: &'a Round,
}

impl View<'_> {
    fn acts(&self, id: Id) -> usize {
        self.executor.ledger().acts_of(self.executor.graph().name(id), self.round.at, ACTS_WITHIN)
    }

    fn document(&self, id: Id, since: Option<Timestamp>) -> serde_json::Value {
        let graph = self.executor.graph();
        let status = &self.round.statuses[id.index()];
        let names = |ids: &[Id]| ids.iter().map(|id| graph.name(*id).clone()).collect::<Vec<ServiceName>>();
        serde_json::json!({
            "name": graph.name(id),
            "state": words::slug(&status.state),
            "is": words::is(status, self.executor, id),
            "well": words::is_well(status),
            "since": since,
            "acts_in_half_hour": self.acts(id),
            "failed_attempts": self.executor.ledger().failed(graph.name(id)),
            "external": graph.service(id).external,
            "needs": names(graph.needs(id)),
            "needed_by": names(graph.needed_by(id)),
            "impact": graph.service(id).impact,
        })
    }

    fn text(&self, since: impl Fn(Id) -> Option<Timestamp>, args: &LookArgs) -> String {
        let graph = self.executor.graph();
        let now = Timestamp::now();
        let ago = |then: Timestamp| Duration::try_from(now.duration_since(then)).map(words::span);
        let rows = graph.ids().map(|id| {
            let status = &self.round.statuses[id.index()];
            let acts = self.acts(id);
            let failed = self.executor.ledger().failed(graph.name(id));
            let tried = match (acts, failed) {
                (0, 0) => String::new(),
                (acts, 0) => acts.to_string(),
                (acts, failed) => format!("{acts} ({failed} failed)"),
            };
            let needs = words::names(graph.needs(id).iter().map(|need| graph.name(*need).as_str()));
            let since = since(id).and_then(|then| ago(then).ok()).unwrap_or_default();
            [graph.name(id).to_string(), words::is(status, self.executor, id), since, tried, needs]
        });
        let mut text = output::table(["service", "is", "for", "acts", "needs"], &[], rows);
        let ill: Vec<Id> = graph.ids().filter(|id| !words::is_well(&self.round.statuses[id.index()])).collect();
        let stopped = self.round.statuses.iter().filter(|status| matches!(status.state, State::Stopped { .. })).count();
        text.push('\n');
        if ill.is_empty() {
            let stopped = if stopped > 0 { format!(" ({stopped} stopped on purpose)") } else { String::new() };
            text.push_str(&format!("All {} are well{stopped}.\n", words::services(graph.len())));
        } else {
            let names = words::names(ill.iter().map(|id| graph.name(*id).as_str()));
            text.push_str(&format!("{} of {} not well: {names}.\n", ill.len(), words::services(graph.len())));
            let hurt = self.hurt(&ill);
            if !hurt.is_empty() {
                text.push_str(&format!("People are without: {}.\n", words::names(hurt)));
            }
            text.push_str("`oxpecker service plan` shows what would bring them back.\n");
        }
        let open = self.round.statuses.iter().any(words::is_open);
        if open && looked_for(args).is_zero() {
            text.push_str("Looked once. Whether what is healthy stays so, and what is not gets there: `--for 10s`.\n");
        }
        text
    }

    /// What people lose by these and by all that needs them, each once.
    fn hurt(&self, ill: &[Id]) -> Vec<String> {
        let graph = self.executor.graph();
        let mut hurt: Vec<String> = Vec::new();
        for id in ill.iter().flat_map(|id| std::iter::once(*id).chain(graph.affected_by(*id))) {
            for what in &graph.service(id).impact {
                if !hurt.contains(what) {
                    hurt.push(what.clone());
                }
            }
        }
        hurt
    }
}
