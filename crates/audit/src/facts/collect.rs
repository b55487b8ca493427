//! File after file into facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::civil::Date;
use serde::Serialize;

use super::{
    Asked, Facts, Host, Located, OwnBackups, Server, Settings, backup, compose, evidence, folder, kubernetes, oxpecker,
    place, rules, systemd,
};
use crate::{
    finding::Place,
    words,
    yaml::{self, Parsed},
};

/// What is wrong with what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Could not be read or understood: what it holds was not audited.
    Broken,
    /// A template that nobody rendered: its content was not audited.
    Template,
    /// An ignore that does not count.
    Ignore,
}

/// Something that was not audited, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// Of what kind.
    pub kind: ProblemKind,
    /// What is wrong and what to do.
    pub what: String,
}

/// A comment that says why a finding is accepted, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignore {
    /// Where it stands.
    pub place: Place,
    /// The lines that it is about: those of its document.
    pub lines: (u32, u32),
    /// The check.
    pub check: String,
    /// The last day on which it counts.
    pub until: Date,
    /// Why.
    pub reason: String,
}

/// Problems of one run that are kept; the rest is counted.
pub const PROBLEMS_MAX: usize = 1_000;
/// Ignores of one run that are kept.
const IGNORES_MAX: usize = 10_000;
/// What an ignore begins with, in a comment.
const IGNORE: &str = "oxpecker: ignore ";

/// Gathers facts. Keeps no text and no tree.
#[derive(Debug)]
pub struct Collector {
    pub(super) facts: Facts,
    pub(super) timers: BTreeMap<String, Located<String>>,
    ignores: Vec<Ignore>,
    problems: Vec<Problem>,
    problems_untold: usize,
    configurations: Vec<(String, Settings)>,
    patches: BTreeSet<String>,
}

impl Collector {
    /// With nothing in it.
    pub fn new(today: Date) -> Self {
        Self {
            facts: Facts::new(today),
            timers: BTreeMap::new(),
            ignores: vec![],
            problems: vec![],
            problems_untold: 0,
            configurations: vec![],
            patches: BTreeSet::new(),
        }
    }

    /// Says that something could not be audited.
    pub fn problem(&mut self, place: Place, kind: ProblemKind, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem { place, kind, what });
        } else {
            self.problems_untold += 1;
        }
    }

    /// Takes what a running server said, or why it said nothing.
    pub fn server(&mut self, server: Asked<Server>) {
        self.facts.server = Some(server);
    }

    /// Takes this machine.
    pub fn host(&mut self, host: Host) {
        self.facts.host = Some(host);
    }

    /// Takes what lies in our own repository, or why that can't be told.
    pub fn own_backups(&mut self, own: Asked<OwnBackups>) {
        self.facts.own = Some(own);
    }

    /// Takes our own configuration, whatever its file is called.
    pub fn own_configuration(&mut self, name: &str, text: &str) {
        let file: Arc<str> = words::shown_path(name).into();
        if let Err(error) = oxpecker::take(text, &file, self) {
            self.problem(place(&file, 1), ProblemKind::Broken, format!("not TOML: {}", words::shown(&error)));
        }
    }

    pub(super) fn configuration(&mut self, source: String, settings: Settings) {
        self.configurations.push((source, settings));
    }

    /// Takes a file by its name. Whether it was one that the audit reads.
    pub fn add(&mut self, name: &str, text: &str) {
        let file: Arc<str> = words::shown_path(name).into();
        let base = name.rsplit('/').next().unwrap_or(name);
        let lower = base.to_ascii_lowercase();
        let stem = |suffix: &str| base.strip_suffix(suffix).unwrap_or(base).to_owned();
        self.facts.files += 1;
        let last_line = u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
        let extension = lower.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "yaml" | "yml" | "json" | "rules" => return self.yaml(&file, text),
            "service" => systemd::service(&stem(".service"), text, &file, self),
            "timer" => systemd::timer(&stem(".timer"), text, &file, self),
            _ if lower == "oxpecker.toml" => {
                if let Err(error) = oxpecker::take(text, &file, self) {
                    self.problem(place(&file, 1), ProblemKind::Broken, format!("not TOML: {}", words::shown(&error)));
                }
            }
            _ if lower.starts_with("expected-routes") => evidence::expected_routes(text, &file, self),
            _ if lower.starts_with("readme") => evidence::readme(text, &file, self),
            _ if lower.contains(".env") || lower.starts_with("env.") => match is_example(&lower) {
                true => evidence::example(text, &file, self),
                false => evidence::env_file(text, &file, self),
            },
            "conf" => {
                self.configuration(format!("file:{name}"), Settings::of_file(text, &file, 1));
                self.facts.expected.extend(evidence::server_names(text, &place(&file, 1)));
            }
            "py" | "js" | "ts" | "mjs" | "rb" => evidence::settings(text, &file, self),
            // Standard input, and files that were named by a person, are taken for manifests.
            _ => return self.yaml(&file, text),
        }
        self.ignores(&file, text, &|_| (1, last_line));
    }

    fn yaml(&mut self, file: &Arc<str>, text: &str) {
        // These parse as YAML where they stand in quotes, and mean nothing before they are rendered. Other braces may be meant for Prometheus.
        if ["{{ .Values", "{{.Values", "{{ .Release", "{{ include "].iter().any(|mark| text.contains(mark)) {
            return self.template(file, 1);
        }
        let parsed = yaml::parse(text);
        if !parsed.faults.is_empty() && text.contains("{{") {
            return self.template(file, parsed.faults[0].line);
        }
        for fault in &parsed.faults {
            self.problem(place(file, fault.line), ProblemKind::Broken, fault.what.clone());
        }
        self.documents(file, &parsed);
        let spans: Vec<(u32, u32)> = parsed.documents.iter().map(|d| (d.first_line, d.last_line)).collect();
        // Comments before the first document are about it.
        let around = |line: u32| {
            spans.iter().rev().find(|(first, _)| *first <= line).or(spans.first()).copied().unwrap_or((line, line))
        };
        self.ignores(file, text, &around);
    }

    /// Files that a kustomization changes others with: parts of objects, which mean nothing alone. It is read before the files beside it.
    fn kustomization(&mut self, file: &Arc<str>, root: &yaml::Node) {
        let listed = root.items_at(&["patches"]).iter().filter_map(|patch| patch.text_at(&["path"]).or(patch.text()));
        let strategic = root.items_at(&["patchesStrategicMerge"]).iter().filter_map(yaml::Node::text);
        let six = root.items_at(&["patchesJson6902"]).iter().filter_map(|patch| patch.text_at(&["path"]));
        let named: Vec<&str> = listed.chain(strategic).chain(six).filter(|name| !name.contains('\n')).collect();
        if named.is_empty() {
            return;
        }
        let beside = folder(file);
        let path = |name: &&str| match beside {
            "" => name.trim_start_matches("./").to_owned(),
            folder => format!("{folder}/{}", name.trim_start_matches("./")),
        };
        self.patches.extend(named.iter().map(path));
        let what = format!(
            "a kustomization with {} patches, which were left out: what stands here is without them; for the whole: kustomize build {} | oxpecker audit -",
            named.len(),
            if beside.is_empty() { "." } else { beside }
        );
        self.problem(place(file, root.line), ProblemKind::Template, what);
    }

    fn documents(&mut self, file: &Arc<str>, parsed: &Parsed) {
        if self.patches.contains(&**file) {
            return;
        }
        for document in &parsed.documents {
            let root = &document.root;
            let is_kustomization = root.text_at(&["kind"]) == Some("Kustomization")
                || file.rsplit('/').next().is_some_and(|name| name.starts_with("kustomization.y"));
            if is_kustomization && root.get("spec").is_none() {
                self.kustomization(file, root);
                continue;
            }
            let taken = kubernetes::take(root, file, self) || compose::take(root, file, self);
            if !taken && !root.items_at(&["groups"]).is_empty() {
                let at = place(file, root.line);
                self.facts.rules.extend(rules::read(root, &at));
            }
        }
    }

    fn template(&mut self, file: &Arc<str>, line: u32) {
        let what = match folder(file).rsplit_once("templates") {
            Some((chart, _)) if !chart.is_empty() => {
                format!("a template; render it first: helm template {chart} | oxpecker audit -")
            }
            _ => "a template; render it first (helm template, kustomize build) and give its output to oxpecker audit -"
                .to_owned(),
        };
        self.problem(place(file, line), ProblemKind::Template, what);
    }

    /// Finds `oxpecker: ignore CHECK until YYYY-MM-DD: reason`.
    fn ignores(&mut self, file: &Arc<str>, text: &str, around: &dyn Fn(u32) -> (u32, u32)) {
        if !text.contains(IGNORE) {
            return;
        }
        for (line, number) in text.lines().zip(1_u32..) {
            let Some((before, said)) = line.split_once(IGNORE) else { continue };
            if !before.contains(['#', ';']) && !before.contains("//") && !before.contains("<!--") {
                continue;
            }
            let at = place(file, number);
            match ignore(said) {
                Ok((check, until, reason)) if self.ignores.len() < IGNORES_MAX => {
                    self.ignores.push(Ignore { place: at, lines: around(number), check, until, reason });
                }
                Ok(_) => self.problem(
                    at,
                    ProblemKind::Ignore,
                    format!("more than {IGNORES_MAX} ignores; this one does not count"),
                ),
                Err(why) => {
                    let how = "write: oxpecker: ignore CHECK until YYYY-MM-DD: reason";
                    self.problem(at, ProblemKind::Ignore, format!("this ignore does not count: {why}; {how}"));
                }
            }
        }
    }

    /// The facts, the ignores, the problems, and how many problems more there were.
    pub fn finish(mut self) -> (Facts, Vec<Ignore>, Vec<Problem>, usize) {
        for workload in &mut self.facts.workloads {
            workload.recognise();
            if let Some(timer) = self.timers.get(&format!("{}.service", workload.name)) {
                workload.schedule = Some(timer.clone());
                workload.lasting = false;
            }
            if workload.engine() != Some(super::Engine::Postgres) {
                continue;
            }
            let mounts = workload.containers.iter().flat_map(|container| &container.mounts);
            let sources: Vec<String> = mounts.map(|mount| mount.source.clone()).collect();
            for (source, settings) in &self.configurations {
                if sources.contains(source) {
                    workload.settings.fill(settings);
                }
            }
        }
        self.facts.index();
        backup::read(&mut self.facts);
        self.problems.sort();
        (self.facts, self.ignores, self.problems, self.problems_untold)
    }
}

fn is_example(name: &str) -> bool {
    ["example", "sample", "template", "dist", "default"].iter().any(|word| name.contains(word))
}

fn ignore(said: &str) -> Result<(String, Date, String), String> {
    let (check, rest) = said.trim().split_once(' ').ok_or("it has no date and no reason")?;
    let (until, reason) =
        rest.trim().strip_prefix("until ").and_then(|rest| rest.split_once(':')).ok_or("it has no date")?;
    let until: Date = until.trim().parse().map_err(|_| format!("{} is no date", words::shown(until.trim())))?;
    let reason = reason.trim().trim_end_matches("-->").trim();
    if reason.is_empty() {
        return Err("it has no reason".to_owned());
    }
    if crate::checks::check(check).is_none() {
        return Err(format!("{} is no check", words::shown(check)));
    }
    Ok((check.to_owned(), until, words::shown(reason)))
}
