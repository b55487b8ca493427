//! Files that are broken, hostile or not there: each is reported with its place, and the rest is still audited.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use audit::{
    Options, Report,
    facts::{Collector, ProblemKind},
    source,
};
use jiff::civil::date;

fn audit(paths: &[PathBuf], stdin: &[u8]) -> Report {
    let mut collector = Collector::new(date(2026, 11, 23));
    source::read(paths, stdin, &mut collector).unwrap();
    audit::audit(collector, &Options::default())
}

/// A folder with one sound workload and a file of the test's own.
fn folder(name: &str, content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sound = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/outage/bot/deployment.yaml");
    fs::copy(sound, folder.path().join("sound.yaml")).unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    folder
}

/// One problem that says so, and the sound file audited all the same.
fn assert_told(report: &Report, words: &str) {
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    assert!(report.problems[0].what.contains(words), "{:?}", report.problems);
    assert!(report.findings.iter().any(|finding| finding.object == "Deployment/bot"), "the rest was not audited");
}

#[test]
fn broken_yaml() {
    let folder = folder("broken.yaml", "a: 1\nb: [1, 2\nc: {\n");
    let report = audit(&[folder.path().to_owned()], b"");
    assert_told(&report, "not YAML");
    assert!(report.is_incomplete());
    assert!(report.problems[0].place.file.ends_with("broken.yaml") && report.problems[0].place.line >= 2);
}

#[test]
fn keys_that_come_twice() {
    let folder = folder("twice.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  x: 1\n  x: 2\n");
    let report = audit(&[folder.path().to_owned()], b"");
    assert_told(&report, "comes twice");
    assert_eq!(report.problems[0].place.line, 6);
}

#[test]
fn alias_bombs() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
    }
    assert_told(&audit(&[folder("bomb.yaml", bomb).path().to_owned()], b""), "aliases unfold");
}

#[test]
fn depth() {
    assert_eq!(audit(&[folder("deep.yaml", "[".repeat(200_000)).path().to_owned()], b"").problems.len(), 1);
    let lists = "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: [".to_owned()
        + &"{apiVersion: v1, kind: List, items: [".repeat(50)
        + &"]}".repeat(50)
        + "]}]\n";
    assert_eq!(audit(&[folder("lists.yaml", lists).path().to_owned()], b"").problems, []);
}

#[test]
fn large_files_are_not_read() {
    let folder = folder("large.yaml", "");
    // A file with a hole: large, and quick to make.
    fs::File::options().write(true).open(folder.path().join("large.yaml")).unwrap().set_len(200 << 20).unwrap();
    assert_told(&audit(&[folder.path().to_owned()], b""), "larger than");
}

#[test]
fn endless_input_ends() {
    let mut collector = Collector::new(date(2026, 11, 23));
    source::read(&["-".into()], std::io::repeat(b'a'), &mut collector).unwrap();
    let report = audit::audit(collector, &Options::default());
    assert!(report.problems[0].what.contains("larger than"), "{:?}", report.problems);
}

#[test]
fn what_is_no_text() {
    assert_told(&audit(&[folder("bytes.yaml", [b'a', b':', b' ', 0xff, 0xfe]).path().to_owned()], b""), "no UTF-8");
}

#[test]
fn links_that_lead_back() {
    let folder = folder("other.yaml", "");
    symlink(folder.path(), folder.path().join("loop")).unwrap();
    symlink(folder.path().join("self.yaml"), folder.path().join("self.yaml")).unwrap();
    let report = audit(&[folder.path().to_owned(), folder.path().to_owned()], b"");
    assert_told(&report, "can't be read");
    assert_eq!(report.files, 2, "no file is read twice");
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = folder("other.yaml", "");
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe.yaml")).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: no mkfifo here");
        return;
    }
    assert_told(&audit(&[folder.path().to_owned()], b""), "neither a file nor a folder");
}

#[test]
fn unreadable_paths() {
    let folder = folder("other.yaml", "");
    symlink("/nonexistent/target", folder.path().join("gone.yaml")).unwrap();
    assert_told(&audit(&[folder.path().to_owned()], b""), "can't be read");
    let mut collector = Collector::new(date(2026, 11, 23));
    let error = source::read(&["/nonexistent/path".into()], &b""[..], &mut collector).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/path") && error.to_string().contains("hint:"), "{error}");
}

#[test]
fn templates_are_told_and_not_fatal() {
    for text in [
        "kind: {{ .Values.kind }}\n",
        "{{- if .x }}\na: 1\n{{- end }}\n",
        "name: \"{{ .Release.Name }}\"\n",
        "image: {{ image }}\n",
    ] {
        let folder = folder("template.yaml", text);
        let report = audit(&[folder.path().to_owned()], b"");
        assert_told(&report, "a template; render it first");
        assert_eq!(report.problems[0].kind, ProblemKind::Template);
        assert!(!report.is_incomplete(), "{text}");
    }
}

#[test]
fn patches_of_a_kustomization_are_told_and_left_out() {
    let part = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: part}\nspec:\n  template:\n    spec:\n      containers: [{name: bot, image: example/bot}]\n";
    let folder = folder("a-part.yaml", part);
    for list in ["patches:\n  - path: a-part.yaml\n", "patchesStrategicMerge:\n  - ./a-part.yaml\n"] {
        fs::write(folder.path().join("kustomization.yaml"), format!("resources: [sound.yaml]\n{list}")).unwrap();
        let report = audit(&[folder.path().to_owned()], b"");
        assert_told(&report, "kustomize build");
        assert!(report.findings.iter().all(|finding| !finding.object.contains("part")), "{:?}", report.findings);
        assert!(!report.is_incomplete());
    }
}

#[test]
fn unknown_kinds_and_versions_are_counted() {
    let folder = folder(
        "unknown.yaml",
        "apiVersion: example.org/v9\nkind: Sprocket\nmetadata: {name: a}\n---\nkind: nothing\n---\njust text\n---\n- a list\n",
    );
    let report = audit(&[folder.path().to_owned()], b"");
    assert_eq!(report.problems, []);
    assert_eq!(report.unknown_kinds.get("example.org/v9 Sprocket"), Some(&1));
}

#[test]
fn hostile_names_stay_on_their_line() {
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: \"x\\n\\e[31m; rm -rf ~ #\"}\nspec:\n  template:\n    spec:\n      containers:\n        - name: \"$(reboot)\"\n          \
                image: \"a`b\"\n          envFrom: [{secretRef: {name: \"s; rm -rf ~\"}}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: other}\n";
    let report = audit(&["-".into()], text.as_bytes());
    assert!(!report.findings.is_empty());
    for out in [audit::render::text(&report), audit::render::markdown(&report)] {
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
    }
    for finding in &report.findings {
        assert!(!finding.message.contains('\n') && !finding.object.contains('\n'));
        if let audit::Remedy::Command(command) = &finding.remedy {
            assert!(command.contains("'s; rm -rf ~'"), "{command}");
        }
    }
}

#[test]
fn wrong_types_everywhere() {
    // Every field of the sound file in turn is a list, a mapping, a number, nothing.
    let sound = include_str!("corpus/outage/postgres/deployment.yaml");
    for (index, line) in sound.lines().enumerate() {
        let Some((key, _)) = line.split_once(':') else { continue };
        for value in ["[]", "{a: [b]}", "-99999999999999999999", "~", "\"\"", "'{{'"] {
            let lines: Vec<String> = sound
                .lines()
                .enumerate()
                .map(|(at, old)| if at == index { format!("{key}: {value}") } else { old.to_owned() })
                .collect();
            audit(&["-".into()], lines.join("\n").as_bytes());
        }
    }
}

#[test]
fn lists_and_json_are_read() {
    let json = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "db"},
        "spec": {"template": {"spec": {"containers": [{"name": "db", "image": "postgres:17.2"}]}}}}]}"#;
    let report = audit(&["-".into()], json.as_bytes());
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.check == "database-unlimited" && finding.object == "Deployment/db")
    );
}
