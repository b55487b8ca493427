//! `oxpecker audit`: time and memory for 5,000 manifests on one core, and precision of each check over the corpus.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

use super::{
    program,
    report::{Table, median},
};
use crate::shell;

/// Manifests of the generated set, one a file.
const MANIFESTS: usize = 5_000;
/// What the issue asks for, in seconds of one core.
const GOAL_SECONDS: f64 = 1.0;
/// A bound of our own on memory, in MiB: facts are kept, texts and trees are not.
const GOAL_MIB: f64 = 128.0;
/// Runs that are counted, after one that warms the caches.
const RUNS: usize = 5;
/// Sets of the corpus that have a list of what must be found, and those in which nothing may be.
const LISTED: &[&str] = &["outage", "compose", "careless", "tangled", "charts"];
const CLEAN: &[&str] = &["well-kept", "compose-well-kept"];

/// Measures and prints.
pub fn run(_: &super::Args) -> Result<()> {
    let program = program::path()?;
    let mut table = Table::new(&["what", "measured", "goal", ""]);
    let folder = tempfile::tempdir()?;
    let bytes = generate(folder.path())?;
    let mut seconds = Vec::new();
    let mut memory: f64 = 0.0;
    for run in 0..=RUNS {
        let (took, mib) = once(&program, folder.path())?;
        if run > 0 {
            seconds.push(took);
            memory = memory.max(mib);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    table.figure("bytes of the set, MiB", bytes as f64 / f64::from(1 << 20), 1);
    table.judged("5,000 manifests on one core, s (median)", median(&mut seconds), 3, GOAL_SECONDS);
    table.judged("resident at most, MiB", memory, 1, GOAL_MIB);
    table.print("Audit: 5,000 manifests");
    precision(&program)
}

/// The same 5,000 files each time: deployments with services, config maps, ingresses and secrets, in 50 folders.
fn generate(root: &Path) -> Result<u64> {
    let mut bytes = 0;
    for index in 0..MANIFESTS / 5 {
        let folder = root.join(format!("team{}", index % 50));
        fs::create_dir_all(&folder)?;
        let database = index % 100 == 0;
        let image = if database {
            "postgres:17.2".to_owned()
        } else {
            format!("registry.example.org/team/app{index}:1.{}", index % 7)
        };
        let mut env = String::new();
        for variable in 0..8 {
            _ = write!(
                env,
                "            - name: SETTING_{variable}\n              value: \"value {index} of {variable}\"\n"
            );
        }
        let files = [
            (
                "deployment",
                format!(
                    "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app{index}\n  namespace: team{}\n  labels: {{app: app{index}}}\nspec:\n  replicas: {}\n  selector:\n    \
                     matchLabels: {{app: app{index}}}\n  template:\n    metadata:\n      labels: {{app: app{index}}}\n    spec:\n      containers:\n        - name: main\n          image: \
                     {image}\n          env:\n{env}            - name: DATABASE_URL\n              valueFrom:\n                secretKeyRef: {{name: secret{index}, key: url}}\n          ports:\n            \
                     - containerPort: 8000\n",
                    index % 50,
                    index % 3 + 1
                ),
            ),
            (
                "service",
                format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{name: app{index}, namespace: team{}}}\nspec:\n  selector: {{app: app{index}}}\n  ports:\n    - port: 80\n",
                    index % 50
                ),
            ),
            (
                "config",
                format!(
                    "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config{index}, namespace: team{}}}\ndata:\n  a: \"1\"\n  b: text of {index}\n",
                    index % 50
                ),
            ),
            (
                "ingress",
                format!(
                    "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: app{index}, namespace: team{}}}\nspec:\n  rules:\n    - host: app{index}.example.org\n      http:\n        \
                     paths:\n          - path: /\n            pathType: Prefix\n            backend:\n              service: {{name: app{index}, port: {{number: 80}}}}\n",
                    index % 50
                ),
            ),
            (
                "secret",
                format!(
                    "apiVersion: v1\nkind: Secret\nmetadata: {{name: secret{index}, namespace: team{}}}\ndata:\n  url: cG9zdGdyZXM6Ly94\n",
                    index % 50
                ),
            ),
        ];
        for (kind, text) in files {
            bytes += text.len() as u64;
            fs::write(folder.join(format!("app{index}-{kind}.yaml")), text)?;
        }
    }
    Ok(bytes)
}

/// One run on the first core: seconds and the most memory, in MiB.
fn once(program: &Path, set: &Path) -> Result<(f64, f64)> {
    let begin = Instant::now();
    let mut command = Command::new("taskset");
    command
        .args(["-c", "0"])
        .arg("/usr/bin/env")
        .arg(program)
        .args(["audit", "--output", "json", "--fail-on", "never"])
        .arg(set);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("taskset (util-linux)")?;
    // The most that it had is shown while it lives: read often, the last value before its end is its peak.
    let status = format!("/proc/{}/status", child.id());
    let mut peak: f64 = 0.0;
    let ended = loop {
        if let Ok(text) = fs::read_to_string(&status) {
            let kib = text
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
            peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        }
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let took = begin.elapsed().as_secs_f64();
    if !ended.success() {
        bail!("oxpecker audit ended with {ended} (signal {:?})", ended.signal());
    }
    Ok((took, peak))
}

/// Findings of a set: check, object, file and line, as the lists have them.
fn findings(program: &Path, set: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new(program).args(["audit", "--output", "json", "--fail-on", "never"]).arg(set).output()?;
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{}", set.display()))?;
    let root = format!("{}/", set.display());
    let line = |finding: &serde_json::Value| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let first = &finding["evidence"][0];
        let file = text(&first["file"]);
        format!(
            "{} | {} | {}:{}",
            text(&finding["check"]),
            text(&finding["object"]),
            file.strip_prefix(&root).unwrap_or(&file),
            first["line"]
        )
    };
    Ok(report["findings"].as_array().into_iter().flatten().map(line).collect())
}

fn precision(program: &Path) -> Result<()> {
    let corpus: PathBuf = shell::root().join("crates/audit/tests/corpus");
    // By check: right ones, false alarms, missed ones.
    let mut by_check: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    for set in LISTED.iter().chain(CLEAN) {
        let found = findings(program, &corpus.join(set))?;
        let listed: BTreeSet<String> = match CLEAN.contains(set) {
            true => BTreeSet::new(),
            false => fs::read_to_string(corpus.join(format!("{set}.expected")))?
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
        };
        let name = |line: &String| line.split(" | ").next().unwrap_or_default().to_owned();
        found.intersection(&listed).for_each(|line| by_check.entry(name(line)).or_default()[0] += 1);
        found.difference(&listed).for_each(|line| by_check.entry(name(line)).or_default()[1] += 1);
        listed.difference(&found).for_each(|line| by_check.entry(name(line)).or_default()[2] += 1);
    }
    let mut table = Table::new(&["check", "right", "false alarms", "missed", "precision"]);
    let mut all = [0; 3];
    let row = |table: &mut Table, name: &str, [right, wrong, missed]: [u32; 3]| {
        let share = f64::from(right) / f64::from((right + wrong).max(1));
        table.row(&[
            name,
            &right.to_string(),
            &wrong.to_string(),
            &missed.to_string(),
            &format!("{:.0} %", share * 100.0),
        ]);
    };
    for (name, counts) in &by_check {
        row(&mut table, name, *counts);
        (0..3).for_each(|index| all[index] += counts[index]);
    }
    row(&mut table, "all", all);
    table.print("Audit: precision over the corpus");
    Ok(())
}
