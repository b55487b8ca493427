//! Journals of every format that was ever released can be read by this version, to the last event.
//!
//! `golden/format-N.sql` is a whole journal of format N as SQL, with one event of each kind that there was. Never edited once released; a
//! new format adds a file: `cargo test -p journal -- --ignored write_golden`.

use std::{fmt::Write as _, fs, path::PathBuf};

use journal::{FORMAT, Journal, Reader};
use model::{EventKind, Reading};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use rusqlite::Connection;
use serde_json::Value;

use crate::{any_event, any_reading, support::*};

fn golden(format: i64) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/it/golden/format-{format}.sql"))
}

/// Whether `old` says nothing that `new` does not say as well.
fn says_as_much(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            old.iter().all(|(key, value)| new.get(key).is_some_and(|new| says_as_much(value, new)))
        }
        (Value::Array(old), Value::Array(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| says_as_much(old, new))
        }
        _ => old == new,
    }
}

#[test]
fn journals_of_all_formats_become_current_ones_and_lose_nothing() {
    for format in 1..=FORMAT {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(journal::FILE_NAME);
        let sql = fs::read_to_string(golden(format)).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(&sql).unwrap();
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(found, format, "the golden file says which format it is");
        let rows = |table: &str| -> Vec<(i64, Vec<u8>)> {
            let sql = format!("SELECT id, CAST(body AS BLOB) FROM {table} ORDER BY id");
            let mut statement = connection.prepare(&sql).unwrap();
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        let (events, readings) = (rows("events"), rows("readings"));
        assert!(events.len() > 20 && readings.len() >= 2);

        let journal = Journal::open(dir.path(), hasty()).unwrap();
        let next = journal.append(at(0), &noted("today")).wait().unwrap();
        assert_eq!(next.0, events.last().unwrap().0 + 1, "numbers go on");
        journal.close(PATIENCE).unwrap();

        let now = all_events(dir.path());
        assert_eq!(now.len(), events.len() + 1);
        for ((id, old), event) in events.iter().zip(&now) {
            let old: Value = serde_json::from_slice(old).unwrap();
            let new = serde_json::to_value(&event.kind).unwrap();
            assert_eq!(event.id.0, *id);
            assert!(says_as_much(&old, &new), "format {format}, event {id}:\n{old}\nis now\n{new}");
        }
        let mut reader = Reader::open(dir.path()).unwrap();
        for (_, old) in readings {
            let old = miniz_oxide::inflate::decompress_to_vec_zlib(&old).unwrap();
            let old: Value = serde_json::from_slice(&old).unwrap();
            let kind = old["reading"].as_str().unwrap();
            let new = serde_json::to_value(reader.latest_reading(kind).unwrap().unwrap()).unwrap();
            assert!(says_as_much(&old, &new), "format {format}:\n{old}\nis now\n{new}");
        }
    }
}

/// The statements that made a journal's tables and indexes.
fn schema(connection: &Connection) -> Vec<String> {
    let sql = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY name";
    let mut statement = connection.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_format_does_not_change_without_a_new_number() {
    let dir = tempfile::tempdir().unwrap();
    Journal::open(dir.path(), hasty()).unwrap().close(PATIENCE).unwrap();
    let fresh = Connection::open(dir.path().join(journal::FILE_NAME)).unwrap();
    let released = Connection::open_in_memory().unwrap();
    released.execute_batch(&fs::read_to_string(golden(FORMAT)).unwrap()).unwrap();
    assert_eq!(schema(&fresh), schema(&released));
    let number = |connection: &Connection, pragma| -> i64 {
        connection.pragma_query_value(None, pragma, |row| row.get(0)).unwrap()
    };
    for pragma in ["application_id", "user_version", "auto_vacuum"] {
        assert_eq!(number(&fresh, pragma), number(&released, pragma), "{pragma}");
    }
}

#[test]
fn golden_files_notice_what_gets_lost() {
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (old, new, same) in [
        (r#"{"a": 1}"#, r#"{"a": 1, "b": 2}"#, true),
        (r#"{"a": 1, "b": 2}"#, r#"{"a": 1}"#, false),
        (r#"{"a": [1, {"b": 2}]}"#, r#"{"a": [1, {"b": 2, "c": 3}]}"#, true),
        (r#"{"a": [1, 2]}"#, r#"{"a": [1]}"#, false),
        (r#"{"a": 1}"#, r#"{"a": 2}"#, false),
    ] {
        assert_eq!(says_as_much(&json(old), &json(new)), same, "{old} / {new}");
    }
}

/// Writes the golden file of the current format where there is none.
#[test]
#[ignore = "run by hand, once for each new format"]
fn write_golden() {
    let target = golden(FORMAT);
    if target.exists() {
        println!("skipped: {} is there and is never changed", target.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(dir.path(), hasty()).unwrap();
    let mut runner = TestRunner::deterministic();
    for (second, kind) in (0..).zip(any_event::each_kind()) {
        // Odd scripts are for the round trip; this one is to be looked at.
        let mut any = std::iter::repeat_with(|| kind.new_tree(&mut runner).unwrap().current());
        let plain = |kind: &EventKind| {
            let body = serde_json::to_string(kind).unwrap();
            body.is_ascii() && !body.contains('\\') && !body.contains("\"\"")
        };
        let kind = any.by_ref().take(100_000).find(plain).expect("one of many to be plain");
        journal.append(at(second), &kind).wait().unwrap();
    }
    let readings: [Reading; 2] = [any_reading::host(at(100), 2), any_reading::activity(at(101), 1)];
    for reading in &readings {
        journal.record(reading);
    }
    journal.close(PATIENCE).unwrap();

    let connection = Connection::open(dir.path().join(journal::FILE_NAME)).unwrap();
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
    let mut sql = format!(
        "PRAGMA auto_vacuum = incremental;\nPRAGMA application_id = {};\nPRAGMA user_version = {FORMAT};\n",
        number("application_id")
    );
    let mut each = |query: &str| {
        let mut statement = connection.prepare(query).unwrap();
        for line in statement.query_map([], |row| row.get::<_, String>(0)).unwrap() {
            writeln!(sql, "{};", line.unwrap()).unwrap();
        }
    };
    each("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'");
    for table in ["events", "readings"] {
        each(&format!(
            "SELECT 'INSERT INTO {table} VALUES (' || id || ', ' || at_wall_us || ', ' || boot_us || ', ' || quote(kind) || ', ' \
             || quote(body) || ')' FROM {table} ORDER BY id"
        ));
    }
    each(
        "SELECT 'INSERT INTO ticks VALUES (' || id || ', ' || age_us || ', ' || wall_us || ', ' || boot_us || ', ' || quote(boot_id) \
         || ', ' || last_event || ', ' || last_reading || ')' FROM ticks ORDER BY id",
    );
    fs::write(target, sql).unwrap();
}
