//! What was answered instead of what was asked for, as something that a person can act on. Pure.

use model::ServiceName;
use zbus::{DBusError as _, fdo};

use super::UnitName;
use crate::driver::{Act, ActError};

/// The longest part of an answer that is passed on, in characters.
const SAID_MAX: usize = 300;

/// A call that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// An error was answered.
    Said {
        /// Its name: `org.freedesktop.systemd1.NoSuchUnit`.
        name: String,
        /// Its words.
        words: String,
    },
    /// Nothing was answered, or nothing that can be read: what became of it is not known.
    Nothing(String),
}

/// Errors that mean that systemd itself did not answer.
const NOBODY: &[&str] = &[
    "org.freedesktop.DBus.Error.NoReply",
    "org.freedesktop.DBus.Error.Disconnected",
    "org.freedesktop.DBus.Error.Timeout",
    "org.freedesktop.DBus.Error.TimedOut",
    "org.freedesktop.DBus.Error.NoServer",
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
];

/// Words from outside are shortened and can't draw on a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SAID_MAX).collect()
}

impl Refusal {
    pub fn said(name: &str, words: &str) -> Self {
        let words = plain(words);
        if NOBODY.contains(&name) || name.starts_with("org.freedesktop.DBus.Error.Spawn.") {
            return Self::Nothing(format!("systemd does not answer on the bus: {words}"));
        }
        Self::Said { name: plain(name), words }
    }

    /// The error's name.
    pub fn is(&self, short: &str) -> bool {
        matches!(self, Self::Said { name, .. } if name.rsplit('.').next() == Some(short))
    }

    /// In words.
    pub fn why(&self) -> String {
        match self {
            Self::Said { name, words } if words.is_empty() => name.clone(),
            Self::Said { words, .. } => words.clone(),
            Self::Nothing(why) => why.clone(),
        }
    }

    /// Why a unit could not be looked at.
    pub fn unseen(&self, bus: &str) -> String {
        match self {
            Self::Said { .. } => format!("systemd does not tell: {}", self.why()),
            Self::Nothing(why) => format!("systemd can't be asked at {}: {why}", plain(bus)),
        }
    }

    /// As the act's error. `asked`: the method that was called.
    pub fn of_act(self, act: Act, service: &ServiceName, unit: &UnitName, asked: &str, bus: &str) -> ActError {
        let service = service.clone();
        let why = self.why();
        let Self::Said { name, .. } = &self else {
            let hint = format!("see whether its bus is at {} and runs: `systemctl status dbus.socket`", plain(bus));
            return ActError::NoAnswer { act, service, why, hint };
        };
        let denied = |hint: String| ActError::Denied { act, service: service.clone(), why: why.clone(), hint };
        let failed = |hint: String| ActError::Failed { act, service: service.clone(), why: why.clone(), hint };
        match name.rsplit('.').next().unwrap_or_default() {
            "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => denied(rights(unit, asked)),
            "UnitMasked" => denied(format!("somebody wants it to stay down; `systemctl unmask {unit}` lets it start")),
            "OnlyByDependency" => denied(format!(
                "{unit} refuses to be started or stopped by hand: RefuseManualStart= or RefuseManualStop= in its file"
            )),
            "NoSuchUnit" => ActError::Absent {
                act,
                service: service.clone(),
                why,
                hint: format!("`systemctl status {unit}`; with `unit_file` a removed unit can be provisioned again"),
            },
            "UnknownMethod" | "UnknownInterface" | "NotSupported" => {
                failed(format!("this systemd is too old: it has no {asked}; do it by hand with systemctl"))
            }
            "BadUnitSetting" | "LoadFailed" | "BadSetting" => {
                failed(format!("`systemd-analyze verify {unit}` shows what is wrong with its file"))
            }
            "TransactionIsDestructive" | "TransactionJobsConflicting" | "TransactionOrderIsCyclic" => failed(format!(
                "other jobs are in its way: `systemctl list-jobs`, `systemctl list-dependencies {unit}`"
            )),
            "ShuttingDown" => failed("the host goes down; try again after its boot".to_owned()),
            "FileExists" | "UnitExists" | "UnitLinked" => failed(format!(
                "another unit of that name is in its way: `systemctl cat {unit}`, then remove what should not be there"
            )),
            _ => failed(format!("`systemctl status {unit}` and `journalctl -u {unit}` tell more")),
        }
    }
}

/// What allows an act.
fn rights(unit: &UnitName, asked: &str) -> String {
    let action = match asked {
        "LinkUnitFiles" => "manage-unit-files",
        "Reload" => "reload-daemon",
        _ => "manage-units",
    };
    let of = if action == "manage-units" { format!(" with unit {unit}") } else { String::new() };
    format!(
        "run it as root, or allow its user the action org.freedesktop.systemd1.{action}{of} in a file of /etc/polkit-1/rules.d; a policy in /etc/dbus-1/system.d may forbid it too"
    )
}

impl From<zbus::Error> for Refusal {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, words, _) => Self::said(name.as_str(), words.as_deref().unwrap_or_default()),
            zbus::Error::FDO(error) => match *error {
                fdo::Error::ZBus(error) => Self::Nothing(plain(&error.to_string())),
                error => Self::said(error.name().as_str(), error.description().unwrap_or_default()),
            },
            error => Self::Nothing(plain(&error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, asked: &str) -> ActError {
        let unit = "site.service".parse().unwrap();
        Refusal::said(name, "some \u{1b}words").of_act(Act::Start, &"site".into(), &unit, asked, "unix:path=/b")
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let systemd = |name: &str| format!("org.freedesktop.systemd1.{name}");
        let dbus = |name: &str| format!("org.freedesktop.DBus.Error.{name}");
        for (name, asked, kind, hint) in [
            (dbus("AccessDenied"), "StartUnit", "not allowed", "manage-units with unit site.service"),
            (dbus("InteractiveAuthorizationRequired"), "StartUnit", "not allowed", "polkit-1/rules.d"),
            (dbus("AccessDenied"), "LinkUnitFiles", "not allowed", "manage-unit-files in"),
            (dbus("AccessDenied"), "Reload", "not allowed", "reload-daemon in"),
            (systemd("UnitMasked"), "StartUnit", "not allowed", "systemctl unmask site.service"),
            (systemd("OnlyByDependency"), "StartUnit", "not allowed", "RefuseManualStart"),
            (systemd("NoSuchUnit"), "StartUnit", "cannot start", "unit_file"),
            (dbus("UnknownMethod"), "LinkUnitFiles", "failed", "too old: it has no LinkUnitFiles"),
            (systemd("BadUnitSetting"), "StartUnit", "failed", "systemd-analyze verify"),
            (systemd("TransactionIsDestructive"), "StartUnit", "failed", "list-jobs"),
            (systemd("ShuttingDown"), "StartUnit", "failed", "after its boot"),
            (dbus("FileExists"), "LinkUnitFiles", "failed", "systemctl cat site.service"),
            ("org.example.Surprise".to_owned(), "StartUnit", "failed", "journalctl -u site.service"),
            (String::new(), "StartUnit", "failed", "journalctl"),
            (dbus("NoReply"), "StartUnit", "no answer", "unix:path=/b"),
            (dbus("ServiceUnknown"), "StartUnit", "no answer", "dbus.socket"),
            (dbus("Spawn.ChildExited"), "StartUnit", "no answer", "dbus.socket"),
        ] {
            let text = error(&name, asked).to_string();
            assert!(text.contains(kind) && text.contains("hint: ") && text.contains(hint), "{name}: {text}");
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn errors_of_the_library_are_told_apart() {
        let denied = zbus::Error::from(fdo::Error::AccessDenied("no".into()));
        assert!(Refusal::from(denied).is("AccessDenied"));
        let lost = zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::TimedOut.into()));
        assert!(matches!(Refusal::from(lost), Refusal::Nothing(_)));
        assert!(matches!(Refusal::from(zbus::Error::from(fdo::Error::NoReply("gone".into()))), Refusal::Nothing(_)));
    }
}
