//! Incidents, from the journal.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use incident::{Incident, IncidentRules};
use journal::{EventQuery, JournalError, Reader};
use model::Event;

/// Events that are read at once.
const PAGE: usize = 10_000;
/// Events that are read at all, from the oldest: what the commands take, too.
const EVENTS_MAX: usize = 1_000_000;
/// How long incidents that were read are good enough.
const FRESH: Duration = Duration::from_secs(2);

/// What was read last: the viewers of one moment share it.
#[derive(Default)]
pub struct Past {
    read: Option<(Instant, Arc<Vec<Incident>>)>,
}

impl Past {
    /// All incidents, oldest first. Blocks.
    ///
    /// # Errors
    /// When there is no journal or it can't be read.
    pub fn incidents(&mut self, state_dir: &Path) -> Result<Arc<Vec<Incident>>, JournalError> {
        if let Some((at, incidents)) = &self.read
            && at.elapsed() < FRESH
        {
            return Ok(incidents.clone());
        }
        let incidents = Arc::new(incident::incidents(&events(state_dir)?, &IncidentRules::default()));
        self.read = Some((Instant::now(), incidents.clone()));
        Ok(incidents)
    }
}

fn events(state_dir: &Path) -> Result<Vec<Event>, JournalError> {
    let mut reader = Reader::open(state_dir)?;
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = reader.events(&EventQuery { after, limit: PAGE, ..EventQuery::default() })?;
        after = page.last;
        all.extend(page.events);
        if after.is_none() || all.len() >= EVENTS_MAX {
            return Ok(all);
        }
    }
}
