//! Whole reports, read by people before they were accepted.

use incident::{IncidentRules, incidents};

use crate::{checks, stories};

#[test]
fn reports() {
    for (name, story) in stories::all() {
        let found = incidents(&story.events, &IncidentRules::default());
        assert_eq!(found.len(), 1, "{name}");
        let markdown = checks::check(&found[0], &story.events).unwrap_or_else(|why| panic!("{name}: {why}"));
        insta::assert_snapshot!(name, markdown);
    }
}
