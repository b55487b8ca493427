//! `oxpecker backup init`.

use std::path::Path;

use repository::Secret;

use crate::{
    cli::{Global, RepositoryArgs},
    config::{self, REPOSITORY_PASSPHRASE},
    exit::{FINE, Failure, Outcome},
    output, place,
    repo::{Protection, Settings},
    secret,
};

/// Creates the repository and the first key that opens it.
pub fn init(global: &Global, args: &RepositoryArgs) -> Outcome {
    let settings = Settings::load(global, args)?;
    let declared = &settings.config.repository;
    vacant(&settings.directory)?;
    let (secret, label, made) = first_secret(declared, &settings.directory)?;
    let info =
        serde_json::json!({ "made_by": concat!("oxpecker ", env!("CARGO_PKG_VERSION")), "host": place::host_name() });
    let created = settings.create(&secret, &label, info);
    if created.is_err()
        && let Some(path) = &made
    {
        // It opens nothing, and would be taken for the key of what is there.
        drop(std::fs::remove_file(path));
    }
    let repository = created?;
    let data_dir = settings.config.postgres.data_dir.clone().or_else(|| super::create::data_dir_of_server(&settings));
    let protection = Protection::of(&repository, &settings.directory, data_dir);
    let next = [
        "`oxpecker key export` makes a recovery key to write down: without it, whoever loses the key above has lost all backups",
        "`oxpecker key confirm` takes it from the paper",
        "`oxpecker backup create` makes the first backup, and `oxpecker backup prove` restores it",
    ];
    let document = serde_json::json!({
        "repository": repository.id(), "place": settings.directory, "opened_by": label, "key_file_made": made.as_ref().map(|path| path.display().to_string()), "protection": protection,
    });
    output::result(global.output, "backup_init", &document, || {
        let mut text = format!("made the repository {} in {}\n", repository.id(), settings.directory.display());
        match &made {
            Some(path) => text.push_str(&format!("made its key: {}\n", path.display())),
            None => text.push_str(&format!("it is opened by: {label}\n")),
        }
        text.push('\n');
        text.push_str(&protection.in_words());
        text.push_str("\nNext:\n");
        next.iter().for_each(|step| text.push_str(&format!("  {step}\n")));
        text
    })?;
    Ok(FINE)
}

/// What may lie at the top of a directory that becomes a repository: what an interrupted attempt left there, and what file systems make.
const OURS: [&str; 7] = ["key", "log", "checkpoint", "pack", "probe", "wal", "lost+found"];

/// Refuses a place that is somebody else's: a prune must never meet their files, and a backup of a database must not hold itself.
fn vacant(directory: &Path) -> Result<(), Failure> {
    let whole = std::path::absolute(directory)?;
    if let Some(data) = whole.ancestors().find(|above| above.join("PG_VERSION").exists()) {
        return Err(Failure::refused(anyhow::anyhow!(
            "the repository {} would lie in a data directory of PostgreSQL, {}",
            directory.display(),
            data.display()
        ))
        .hint("choose another place, best on another disk"));
    }
    // What can't be read is found out, and said, by whoever makes the repository.
    let foreign =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name()).find(|name| {
            let name = name.to_string_lossy();
            !name.starts_with('.') && !OURS.contains(&&*name)
        });
    match foreign {
        Some(name) => {
            Err(Failure::refused(anyhow::anyhow!("{} is not empty: {} is there", directory.display(), name.display()))
                .hint("a repository has its directory for itself: choose one that is empty or not there yet"))
        }
        None => Ok(()),
    }
}

/// What shall open it first, what to call that, and the key file where one was made.
fn first_secret(
    declared: &config::Repository,
    directory: &Path,
) -> Result<(Secret, String, Option<std::path::PathBuf>), Failure> {
    if let Some(path) = &declared.key_file {
        let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
        if parent.is_some_and(|parent| directory.canonicalize().is_ok_and(|directory| parent.starts_with(directory))) {
            return Err(Failure::usage(anyhow::anyhow!("the key file {} would lie in the repository itself", path.display()))
                .hint("put it elsewhere: who finds the one must not have the other, and who loses the one must not lose the other"));
        }
        let (secret, made) = secret::key_file_or_new(path)?;
        return Ok((
            secret,
            format!("key file {} on {}", path.display(), place::host_name()),
            made.then(|| path.clone()),
        ));
    }
    if let Some(path) = &declared.passphrase_file {
        return Ok((
            secret::from_file(path)?,
            format!("passphrase in {} on {}", path.display(), place::host_name()),
            None,
        ));
    }
    if let Some(text) = secret::from_environment() {
        return Ok((secret::from_text(&text)?, format!("passphrase in {REPOSITORY_PASSPHRASE}"), None));
    }
    match secret::ask_new()? {
        Some(secret) => Ok((secret, "passphrase".to_owned(), None)),
        None => Err(Failure::usage(anyhow::anyhow!("nothing says what shall open the repository"))
            .hint("key_file = \"/etc/oxpecker/repository.key\" in [repository]: the file is made, and guards and backups need nobody to type")),
    }
}
