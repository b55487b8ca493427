//! `oxpecker key ...`.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, IsTerminal as _},
    path::Path,
};

use repository::{RecoveryKey, Repository, Secret, Slot, SlotId, SlotKind};

use super::backup::words;
use crate::{
    cli::{Global, KeyCommand},
    exit::{FINE, Failure, Outcome},
    output, place,
    prompt::{self, Echo},
    repo::{self, Settings},
    secret,
};

/// The most characters of a slot's label: it is one cell of a table.
const LABEL_CHARS_MAX: usize = 200;
/// The longest recovery key that is read from a pipe, in bytes: 36 characters, dashes and blanks.
const RECOVERY_BYTES_MAX: u64 = 256;

/// Does what the command line says.
pub fn run(global: &Global, command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::List { repository } => list(global, &Settings::load(global, &repository)?),
        KeyCommand::Add { new_key_file, new_passphrase_file, label, repository } => add(
            global,
            &Settings::load(global, &repository)?,
            new_key_file.as_deref(),
            new_passphrase_file.as_deref(),
            &label,
        ),
        KeyCommand::Remove { slot, yes, repository } => {
            remove(global, &Settings::load(global, &repository)?, &slot, yes)
        }
        KeyCommand::Rotate { keep_key_file, keep_passphrase_file, yes, repository } => {
            let mut others = Vec::new();
            for path in &keep_key_file {
                others.push(secret::key_file(path)?);
            }
            for path in &keep_passphrase_file {
                others.push(secret::from_file(path)?);
            }
            rotate(global, &Settings::load(global, &repository)?, others, yes)
        }
        KeyCommand::Export { label, repository } => export(global, &Settings::load(global, &repository)?, &label),
        KeyCommand::Confirm { repository } => confirm(global, &Settings::load(global, &repository)?),
    }
}

fn list(global: &Global, settings: &Settings) -> Outcome {
    let repository = settings.open()?;
    let slots = repository.keys().list();
    let document = serde_json::json!({
        "repository": repository.id(), "slots": slots, "recovery_key_confirmed": repository.is_recoverable(),
    });
    output::result(global.output, "keys", &document, || {
        let rows = slots.iter().map(|slot| {
            let confirmed = match (slot.kind, slot.confirmed) {
                (SlotKind::Recovery, true) => "confirmed",
                (SlotKind::Recovery, false) => "NOT CONFIRMED",
                _ => "",
            };
            [
                short(slot.id),
                slot.kind.to_string(),
                words::moment(slot.created),
                slot.label.clone(),
                confirmed.to_owned(),
            ]
        });
        let mut text = output::table(["slot", "opened by", "made", "called", ""], &[], rows);
        if !repository.is_recoverable() {
            text.push_str("\nNOT PROTECTED: no recovery key was exported and confirmed: `oxpecker key export`, write it down, `oxpecker key confirm`\n");
        }
        text
    })?;
    Ok(FINE)
}

fn add(
    global: &Global,
    settings: &Settings,
    key_file: Option<&Path>,
    passphrase_file: Option<&Path>,
    label: &str,
) -> Outcome {
    fits(label)?;
    let repository = settings.open()?;
    let (fresh, called, made) = match (key_file, passphrase_file) {
        (Some(path), _) => {
            let (fresh, made) = secret::key_file_or_new(path)?;
            (fresh, format!("key file {} on {}", path.display(), place::host_name()), made)
        }
        (None, Some(path)) => (secret::from_file(path)?, "passphrase".to_owned(), false),
        (None, None) => {
            let asked = secret::ask_new()?.ok_or_else(|| {
                Failure::usage(anyhow::anyhow!("nothing says what shall open it"))
                    .hint("--new-key-file or --new-passphrase-file; on a terminal you are asked for a passphrase")
            })?;
            (asked, "passphrase".to_owned(), false)
        }
    };
    // Made, it would be taken for a key of the repository, which it is none of.
    let unmade = |failure: Failure| {
        if made && let Some(path) = key_file {
            drop(std::fs::remove_file(path));
        }
        failure
    };
    if fresh.kind() == SlotKind::Recovery {
        return Err(Failure::usage(anyhow::anyhow!("this is a recovery key, which `key export` makes"))
            .hint("choose a passphrase of your own"));
    }
    let label = if label.is_empty() { &called } else { label };
    let slot = repository.keys().add(&fresh, label).map_err(|error| unmade(repo::failure(error)))?;
    let document = serde_json::json!({ "slot": slot, "label": label, "key_file_made": made });
    output::result(global.output, "key_add", &document, || {
        let made = if made { " (the file was made)" } else { "" };
        format!("slot {}: {label}{made}\n", short(slot))
    })?;
    Ok(FINE)
}

fn remove(global: &Global, settings: &Settings, slot: &str, yes: bool) -> Outcome {
    let repository = settings.open()?;
    let slot = find(&repository, slot)?;
    let kept = |kind: SlotKind| {
        repository.keys().list().iter().any(|other| other.id != slot.id && other.kind == kind && other.confirmed)
    };
    let loses_recovery = slot.kind == SlotKind::Recovery && slot.confirmed && !kept(SlotKind::Recovery);
    let warning = if loses_recovery {
        " It is the only confirmed recovery key: the repository will not count as protected."
    } else {
        ""
    };
    if !yes {
        agreed(&format!(
            "Slot {} ({}, {}) opens the repository no more.{warning} Remove it?",
            short(slot.id),
            slot.kind,
            slot.label
        ))?;
    }
    repository.keys().remove(slot.id).map_err(repo::failure)?;
    let document = serde_json::json!({ "removed": slot.id, "recovery_key_confirmed": repository.is_recoverable() });
    output::result(global.output, "key_remove", &document, || {
        format!(
            "slot {} is removed.{warning}\nWho had that secret and a copy of the repository's key objects can still open what is there: \
             `oxpecker key rotate` seals what comes with a new key\n",
            short(slot.id)
        )
    })?;
    Ok(FINE)
}

fn rotate(global: &Global, settings: &Settings, others: Vec<Secret>, yes: bool) -> Outcome {
    let (repository, own) = settings.open_keeping()?;
    let mut secrets = vec![own];
    secrets.extend(others);
    let before = repository.keys().list();
    // Which of the slots the secrets open is known only afterwards, so what is shown beforehand is what is there.
    if !yes {
        let slots: Vec<String> =
            before.iter().map(|slot| format!("  {} {} ({})", short(slot.id), slot.kind, slot.label)).collect();
        agreed(&format!(
            "These open the repository now:\n{}\nAfterwards only the {} that you gave will; a recovery key that is not among them is void.\nGo on?",
            slots.join("\n"),
            if secrets.len() == 1 { "one".to_owned() } else { secrets.len().to_string() }
        ))?;
    }
    repository.keys().rotate(&secrets).map_err(repo::failure)?;
    let after: BTreeSet<SlotId> = repository.keys().list().iter().map(|slot| slot.id).collect();
    let void: Vec<&Slot> = before.iter().filter(|slot| !after.contains(&slot.id)).collect();
    let document = serde_json::json!({
        "slots": repository.keys().list(), "void": void, "recovery_key_confirmed": repository.is_recoverable(),
    });
    output::result(global.output, "key_rotate", &document, || {
        let mut text =
            "all that is written from now on is sealed with a new key; what is there stays as it is\n".to_owned();
        for slot in &void {
            text.push_str(&format!("void: {} {} ({})\n", short(slot.id), slot.kind, slot.label));
        }
        if !repository.is_recoverable() {
            text.push_str("NOT PROTECTED: no recovery key is left: `oxpecker key export`, write it down, `oxpecker key confirm`\n");
        }
        text
    })?;
    Ok(FINE)
}

fn export(global: &Global, settings: &Settings, label: &str) -> Outcome {
    fits(label)?;
    let repository = settings.open()?;
    let key = repository.keys().export_recovery_key(label).map_err(repo::failure)?;
    let document =
        serde_json::json!({ "repository": repository.id(), "place": settings.directory, "recovery_key": key.as_str() });
    output::result(global.output, "key_export", &document, || {
        format!(
            "Recovery key of the oxpecker repository {}\n  place    {}\n  cluster  {}\n  made     {}\n\n    {}\n\n\
             It opens the repository when everything else is lost, for anybody who holds it.\n\
             Write it on paper, with the lines above, and keep that away from this host. It is shown this once.\n\
             Then type it in from the paper: `oxpecker key confirm`. Until then it does not count.\n",
            repository.id(),
            settings.directory.display(),
            settings.cluster(),
            words::moment(jiff::Timestamp::now()),
            key.as_str(),
        )
    })?;
    Ok(FINE)
}

fn confirm(global: &Global, settings: &Settings) -> Outcome {
    let repository = settings.open()?;
    let typed = match prompt::ask("The recovery key, from the paper: ", Echo::On)? {
        Some(typed) => typed,
        None if io::stdin().is_terminal() => zeroize::Zeroizing::default(),
        None => from_pipe(io::stdin().lock())?,
    };
    if typed.trim().is_empty() {
        return Err(Failure::usage(anyhow::anyhow!("no recovery key was given"))
            .hint("type it at the terminal, or give it on stdin, not as an argument: others see those"));
    }
    let key: RecoveryKey = typed.parse().map_err(Failure::usage)?;
    repository.keys().confirm_recovery_key(&key).map_err(repo::failure)?;
    let document = serde_json::json!({ "recovery_key_confirmed": repository.is_recoverable() });
    output::result(global.output, "key_confirm", &document, || {
        "confirmed: this key opens the repository\n".to_owned()
    })?;
    Ok(FINE)
}

/// Labels are kept for good and shown to whoever lists the keys.
fn fits(label: &str) -> Result<(), Failure> {
    if label.chars().count() > LABEL_CHARS_MAX || label.chars().any(char::is_control) {
        return Err(Failure::usage(anyhow::anyhow!(
            "the label can't be kept: it is one line of up to {LABEL_CHARS_MAX} characters"
        ))
        .hint("say in a few words whose the key is, or where it lies"));
    }
    Ok(())
}

/// The first line that is not empty. No more is waited for: whoever types it through `ssh` without a terminal ends it by a newline.
fn from_pipe(from: impl BufRead) -> Result<zeroize::Zeroizing<String>, Failure> {
    let mut from = from.take(RECOVERY_BYTES_MAX);
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    while bytes.trim_ascii().is_empty() && from.read_until(b'\n', &mut bytes)? > 0 {}
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(zeroize::Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::usage(anyhow::anyhow!("what came over stdin is no recovery key: it is no text"))
            .hint("give the one line of digits and letters that `oxpecker key export` showed")),
    }
}

/// The first digits of a slot's id.
fn short(slot: SlotId) -> String {
    slot.to_string()[..8].to_owned()
}

fn find(repository: &Repository, text: &str) -> Result<Slot, Failure> {
    let mut fitting: Vec<Slot> = repository.keys().list();
    fitting.retain(|slot| !text.is_empty() && slot.id.to_string().starts_with(text));
    match (fitting.pop(), fitting.is_empty()) {
        (Some(slot), true) => Ok(slot),
        (found, _) => {
            let count = fitting.len() + usize::from(found.is_some());
            Err(Failure::usage(anyhow::anyhow!("{text:?} names {count} key slots, not one"))
                .hint("`oxpecker key list` shows them"))
        }
    }
}

fn agreed(question: &str) -> Result<(), Failure> {
    match prompt::consent(question)? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::refused(anyhow::anyhow!("nothing was changed"))),
        None => {
            output::note(question);
            Err(Failure::refused(anyhow::anyhow!("nobody is here to agree")).hint("--yes agrees beforehand"))
        }
    }
}
