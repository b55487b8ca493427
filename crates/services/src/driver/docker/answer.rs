//! What the engine answers, as far as it matters here. Fields that are not there, or null, are as good as empty.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};

use super::error::{EngineError, plain};

/// Compose's label with the project's name.
pub(super) const PROJECT: &str = "com.docker.compose.project";
/// Compose's label with the service's name.
pub(super) const SERVICE: &str = "com.docker.compose.service";
/// Compose's label of containers that a person ran once.
pub(super) const ONE_OFF: &str = "com.docker.compose.oneoff";
/// The digits of an id, at least.
const ID_DIGITS_MIN: usize = 12;
/// The digits of an id, at most.
const ID_DIGITS_MAX: usize = 64;

/// `GET /version`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) api_version: String,
    #[serde(rename = "MinAPIVersion")]
    pub(super) min_api_version: Option<String>,
    pub(super) components: Option<Vec<Component>>,
}

/// One part of an engine.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Component {
    pub(super) name: Option<String>,
}

/// A container as something has it.
pub(super) trait Container {
    /// Whether it has this name, without the slash before it.
    fn is_named(&self, name: &str) -> bool;
    /// What one of its labels says.
    fn label(&self, label: &str) -> Option<&String>;
}

/// One container of `GET /containers/json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    names: Option<Vec<String>>,
    labels: Option<HashMap<String, String>>,
}

impl Container for Listed {
    fn is_named(&self, name: &str) -> bool {
        // A link's name has a slash within.
        !name.contains('/') && self.names.iter().flatten().any(|one| one.strip_prefix('/').unwrap_or(one) == name)
    }

    fn label(&self, label: &str) -> Option<&String> {
        self.labels.as_ref()?.get(label)
    }
}

/// `GET /containers/ID/json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    pub(super) state: State,
    host_config: Option<HostConfig>,
    config: Option<Config>,
}

/// How it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct State {
    #[serde(default)]
    pub(super) status: String,
    #[serde(default, rename = "OOMKilled")]
    pub(super) oom_killed: bool,
    pub(super) exit_code: Option<i64>,
    /// Why its last start failed.
    pub(super) error: Option<String>,
    pub(super) started_at: Option<String>,
    /// Podman before 4 calls it otherwise.
    #[serde(alias = "Healthcheck")]
    pub(super) health: Option<Health>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Health {
    #[serde(default)]
    pub(super) status: String,
    pub(super) log: Option<Vec<HealthLog>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HealthLog {
    pub(super) exit_code: Option<i64>,
    pub(super) output: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    restart_policy: Option<RestartPolicy>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RestartPolicy {
    name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    stop_timeout: Option<i64>,
}

impl Inspected {
    /// Whether the engine starts it again whenever it ends.
    pub(super) fn is_always_restarted(&self) -> bool {
        let policy = self.host_config.as_ref().and_then(|host| host.restart_policy.as_ref()?.name.as_deref());
        matches!(policy, Some("always" | "unless-stopped"))
    }

    /// How long it gets to stop, in seconds, where it says so itself; negative: for ever.
    pub(super) fn stop_timeout(&self) -> Option<i64> {
        self.config.as_ref()?.stop_timeout
    }

    /// When it was started last, in nanoseconds since 1970.
    pub(super) fn started(&self) -> Option<u64> {
        let started: Timestamp = self.state.started_at.as_deref()?.parse().ok()?;
        // One that never was began in the year 1.
        u64::try_from(started.as_nanosecond()).ok().filter(|nanoseconds| *nanoseconds > 0)
    }
}

/// The answer to `POST /containers/create`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Created {
    pub(super) id: String,
}

/// `GET /volumes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volumes {
    pub(super) volumes: Option<Vec<Volume>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Volume {
    pub(super) name: Option<String>,
}

/// One event of `GET /events`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    actor: Option<Actor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    attributes: Option<HashMap<String, String>>,
}

impl Event {
    fn attribute(&self, name: &str) -> Option<&String> {
        self.actor.as_ref()?.attributes.as_ref()?.get(name)
    }
}

impl Container for Event {
    fn is_named(&self, name: &str) -> bool {
        // Renaming tells of both.
        let named = |attribute| self.attribute(attribute).is_some_and(|one| one.trim_start_matches('/') == name);
        named("name") || named("oldName")
    }

    fn label(&self, label: &str) -> Option<&String> {
        self.attribute(label)
    }
}

#[derive(Deserialize)]
struct Message {
    message: Option<String>,
    /// Podman's.
    cause: Option<String>,
}

/// Reads an answer. `what` it is an answer to, in words.
pub(super) fn read<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(body)
        .map_err(|error| EngineError::Unreadable { what: what.to_owned(), why: plain(&error.to_string()) })
}

/// What a refusal says: the API's `{"message": ...}`, or whatever the body holds.
pub(super) fn message(body: &[u8]) -> String {
    let said = serde_json::from_slice::<Message>(body).ok().and_then(|answer| answer.message.or(answer.cause));
    plain(&said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()))
}

/// Whether this is an id, which alone goes into a request's path.
pub(super) fn is_id(id: &str) -> bool {
    (ID_DIGITS_MIN..=ID_DIGITS_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_there_is_empty() {
        let text = br#"{"Id": "ab", "State": {}, "HostConfig": null, "Config": {"StopTimeout": null}}"#;
        let bare: Inspected = read("x", text).unwrap();
        assert_eq!((bare.started(), bare.stop_timeout(), bare.is_always_restarted()), (None, None, false));
        let never: Inspected = read("x", br#"{"Id": "ab", "State": {"StartedAt": "0001-01-01T00:00:00Z"}}"#).unwrap();
        assert_eq!(never.started(), None);
        let podman: Inspected =
            read("x", br#"{"Id": "ab", "State": {"StartedAt": "2024-05-01T10:00:00.5+02:00"}}"#).unwrap();
        assert_eq!(podman.started(), Some(1_714_550_400_500_000_000));
    }

    #[test]
    fn refusals_in_words() {
        assert_eq!(message(br#"{"message":"No such container: site"}"#), "No such container: site");
        assert_eq!(message(br#"{"cause":"no such image","response":404}"#), "no such image");
        assert_eq!(message(b"client version 1.10 is too old\n"), "client version 1.10 is too old");
        assert_eq!(message(b"{\"message\":\"\\u001b[31mred\"}"), "[31mred");
        assert_eq!(message(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }

    #[test]
    fn only_ids_go_into_a_path() {
        assert!(is_id(&"a1".repeat(32)) && is_id("0123456789ab"));
        for id in ["", "0123456789a", "..", "../../version", "0123456789ag", &"a".repeat(65), "0123456789ab/x"] {
            assert!(!is_id(id), "{id}");
        }
    }

    /// JSON of the shapes that answers have, with anything in the places.
    fn anything() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,20}".prop_map(Into::into),
            Just("restarting".into()),
            Just("2026-11-23T14:08:45.047258857Z".into()),
            Just("9999-99-99T99:99:99Z".into()),
        ];
        let key = prop::sample::select(vec![
            "Id",
            "State",
            "Status",
            "StartedAt",
            "ExitCode",
            "Health",
            "Log",
            "Output",
            "Actor",
            "Attributes",
            "name",
            "HostConfig",
            "RestartPolicy",
            "Name",
            "Names",
            "Labels",
            "Config",
            "StopTimeout",
            "message",
            "Components",
            "ApiVersion",
            "MinAPIVersion",
        ]);
        leaf.prop_recursive(4, 32, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec((key.clone(), inner), 0..8)
                    .prop_map(|all| all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    fn takes(body: &[u8]) {
        if let Ok(found) = read::<Inspected>("x", body) {
            let _ = crate::driver::docker::seen::of(&found, true, &[]);
        }
        if let Ok(listed) = read::<Vec<Listed>>("x", body) {
            assert!(listed.iter().all(|one| !one.is_named("a/b")));
        }
        if let Ok(version) = read::<Version>("x", body) {
            let _ = super::super::version::agree(&version);
        }
        let _ = (read::<Event>("x", body), read::<Volumes>("x", body), read::<Created>("x", body));
        assert!(message(body).chars().all(|c| !c.is_control()));
    }

    proptest! {
        #[test]
        fn no_answer_makes_us_panic(value in anything()) {
            takes(&serde_json::to_vec(&value).unwrap());
        }

        #[test]
        fn no_bytes_make_us_panic(body in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
            takes(&body);
            let whole = br#"{"Id":"ab","State":{"Status":"exited","ExitCode":-1,"StartedAt":"0001-01-01T00:00:00Z"}}"#;
            takes(&whole[..cut.index(whole.len())]);
        }
    }

    #[test]
    fn depth_is_bounded() {
        takes("[".repeat(100_000).as_bytes());
    }
}
