//! What a cluster shall be like.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Installation, ScratchCluster, ScratchError, directory::Directory, error::prepare, identity::Identity,
    postmaster::Keeper, template,
};

/// How long a server may take until it accepts connections, unless [`Builder::start_within`] says otherwise.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How much memory must be free for [`Builder::tmpfs`], unless [`Builder::tmpfs_room`] says otherwise.
const TMPFS_ROOM_BYTES: u64 = 1 << 30;
/// The file, included at the end of postgresql.conf, that holds our settings.
pub(crate) const SETTINGS_FILE: &str = "scratch.conf";

/// Builds a [`ScratchCluster`]; see [`ScratchCluster::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    pub(crate) installation: Installation,
    pub(crate) settings: Vec<(String, String)>,
    cpus: Option<Vec<usize>>,
    tmpfs: bool,
    tmpfs_room_bytes: u64,
    template: Option<PathBuf>,
    fresh: bool,
    initdb_args: Vec<String>,
    pub(crate) start_patience: Duration,
}

impl Builder {
    pub(crate) fn new(installation: &Installation) -> Self {
        Self {
            installation: installation.clone(),
            settings: Vec::new(),
            cpus: None,
            tmpfs: false,
            tmpfs_room_bytes: TMPFS_ROOM_BYTES,
            template: None,
            fresh: false,
            initdb_args: Vec::new(),
            start_patience: START_PATIENCE,
        }
    }

    /// Sets a parameter in a configuration file (not on the command line, which would overrule every file and `ALTER SYSTEM`). Of
    /// several values for one name the last counts. All that is not set is as PostgreSQL ships it.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Confines the server's processes to these CPUs.
    pub fn cpus(mut self, cpus: &[usize]) -> Self {
        self.cpus = Some(cpus.to_vec());
        self
    }

    /// Asks for data in memory, so that the disk's noise stays out. Where there is no room the disk is used;
    /// [`ScratchCluster::storage`] tells.
    pub fn tmpfs(mut self, wanted: bool) -> Self {
        self.tmpfs = wanted;
        self
    }

    /// How many bytes of memory must be free for [`Builder::tmpfs`]; 1 GiB by default.
    pub fn tmpfs_room(mut self, bytes: u64) -> Self {
        self.tmpfs_room_bytes = bytes;
        self
    }

    /// Copies this stopped data directory instead of running initdb. It must be of the same major version.
    pub fn template_of(mut self, data_dir: impl AsRef<Path>) -> Self {
        self.template = Some(data_dir.as_ref().to_owned());
        self
    }

    /// Runs initdb itself instead of copying what it made earlier: for a system identifier of its own.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// More arguments for initdb, as `--data-checksums` or `--wal-segsize=1`; it then runs itself, see [`Builder::fresh`].
    pub fn initdb_args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.initdb_args.extend(args.into_iter().map(str::to_owned));
        self.fresh()
    }

    /// How long the server may take until it accepts connections; a minute by default. A long recovery needs more.
    pub fn start_within(mut self, patience: Duration) -> Self {
        self.start_patience = patience;
        self
    }

    /// Makes the data directory and starts the server; returns when it accepts connections.
    ///
    /// # Errors
    /// When there is nobody to run it as, no room, or when the server does not start; the message has the end of its log.
    pub fn start(self) -> Result<ScratchCluster, ScratchError> {
        let identity = Identity::choose()?;
        let postgres = self.installation.bin_dir.join("postgres");
        if !identity.can_reach(&postgres) {
            let remedy = "install the server outside of private directories (the testbed's place for root is /var/cache/oxpecker)";
            return Err(ScratchError::Unreachable { path: postgres, user: identity.name, remedy });
        }
        let directory = Directory::create(&identity, self.tmpfs.then_some(self.tmpfs_room_bytes))?;
        let data = directory.data();
        match (&self.template, self.fresh) {
            (Some(template), _) => template::copy(template, &identity, &data)?,
            (None, true) => template::initdb(&self.installation, &identity, &self.initdb_args, &data)?,
            (None, false) => template::initdb_cached(&self.installation, &identity, &data)?,
        }
        include(&data.join("postgresql.conf"), &format!("include '{SETTINGS_FILE}'"))?;
        let keeper = Keeper::start(self.cpus.as_deref()).map_err(|source| ScratchError::Spawn {
            program: "the thread that starts the server".to_owned(),
            source,
        })?;
        ScratchCluster::start_new(self, identity, directory, keeper)
    }
}

/// Appends a line to a configuration file, if it is not there yet.
pub(crate) fn include(file: &Path, line: &str) -> Result<(), ScratchError> {
    let mut text = fs::read_to_string(file).map_err(prepare("read", file))?;
    if !text.lines().any(|present| present == line) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
        fs::write(file, text).map_err(prepare("write", file))?;
    }
    Ok(())
}

/// A value as postgresql.conf wants it (the manual, "Setting Parameters").
pub(crate) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{include, quote};

    #[test]
    fn quoting() {
        assert_eq!(quote("it's a \\ b"), "'it''s a \\\\ b'");
    }

    #[test]
    fn a_line_is_included_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c");
        std::fs::write(&file, "a = 1").unwrap();
        include(&file, "b = 2").unwrap();
        include(&file, "b = 2").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a = 1\nb = 2\n");
    }
}
