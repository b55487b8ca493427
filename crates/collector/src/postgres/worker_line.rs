//! The line with which an autovacuum worker says what it does (`query` of `pg_stat_activity`): the only place that names the
//! table of a worker in another database. Its form is set in `autovac_report_activity` (src/backend/postmaster/autovacuum.c):
//! `autovacuum: VACUUM[ ANALYZE] schema.table[ (to prevent wraparound)]`, `autovacuum: ANALYZE schema.table`,
//! `autovacuum: BRIN summarize schema.index block`.

use model::{TableName, reading::VacuumKind};

const WRAPAROUND: &str = " (to prevent wraparound)";

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLine {
    pub kind: VacuumKind,
    pub table: Option<TableName>,
    /// Whether it also analyses after its vacuum.
    pub analyzes: bool,
}

/// Reads a worker's line; a line that it does not understand, or an empty one, is a vacuum of no known table.
pub fn parse(line: &str) -> WorkerLine {
    let unknown = WorkerLine { kind: VacuumKind::Autovacuum, table: None, analyzes: false };
    let Some(work) = line.trim_end().strip_prefix("autovacuum: ") else { return unknown };
    let (work, wraparound) = match work.strip_suffix(WRAPAROUND) {
        Some(work) => (work, true),
        None => (work, false),
    };
    let (kind, analyzes, name) = if let Some(name) = work.strip_prefix("VACUUM ANALYZE ") {
        (VacuumKind::Autovacuum, true, name)
    } else if let Some(name) = work.strip_prefix("VACUUM ") {
        (VacuumKind::Autovacuum, false, name)
    } else if let Some(name) = work.strip_prefix("ANALYZE ") {
        (VacuumKind::Autoanalyze, false, name)
    } else if let Some(target) = work.strip_prefix("BRIN summarize ") {
        // The last word is a block number.
        (VacuumKind::Autovacuum, false, target.rsplit_once(' ').map_or(target, |(name, _)| name))
    } else {
        return unknown;
    };
    let kind = if wraparound { VacuumKind::AntiWraparound } else { kind };
    WorkerLine { kind, table: (!name.is_empty()).then(|| TableName::from(name)), analyzes }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_of_workers() {
        use VacuumKind::{AntiWraparound, Autoanalyze, Autovacuum};
        for (line, kind, table, analyzes) in [
            ("autovacuum: VACUUM public.big", Autovacuum, Some("public.big"), false),
            ("autovacuum: VACUUM ANALYZE public.big", Autovacuum, Some("public.big"), true),
            ("autovacuum: ANALYZE public.big", Autoanalyze, Some("public.big"), false),
            ("autovacuum: VACUUM public.big (to prevent wraparound)", AntiWraparound, Some("public.big"), false),
            (
                "autovacuum: VACUUM ANALYZE app.my table (to prevent wraparound)",
                AntiWraparound,
                Some("app.my table"),
                true,
            ),
            ("autovacuum: VACUUM pg_toast.pg_toast_16384", Autovacuum, Some("pg_toast.pg_toast_16384"), false),
            ("autovacuum: BRIN summarize public.logs_idx 128", Autovacuum, Some("public.logs_idx"), false),
            ("", Autovacuum, None, false),
            ("autovacuum: ", Autovacuum, None, false),
            ("<insufficient privilege>", Autovacuum, None, false),
            ("autovacuum: REINDEX of the future", Autovacuum, None, false),
        ] {
            assert_eq!(parse(line), WorkerLine { kind, table: table.map(TableName::from), analyzes }, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "(autovacuum: )?(VACUUM |ANALYZE |BRIN summarize )?\\PC*") {
            let _ = parse(&line);
        }
    }
}
