//! Is it noticed when a part hangs, and does starting it again work?

use std::collections::HashSet;

use super::{
    Check, Family, shows,
    variables::{change, pod},
};
use crate::{
    Severity,
    facts::{Engine, Facts, Origin, Source, Workload, same_namespace, selected},
    finding::{Finding, Remedy},
    quantity::span,
};

pub(super) const CHECKS: &[Check] =
    &[PROBE_KILLS, ROLLING, NO_PROBES, ALWAYS_PULL, DOWNLOADS, FLOATING, SHORT_GRACE, SINGLE, NO_BUDGET];

/// Seconds that a database may need to recover after a crash before anything may kill it: stock settings let it replay a gigabyte of WAL.
const RECOVERY_PATIENCE: u64 = 300;
/// Seconds that a database may need to write its last checkpoint.
const GRACE_MIN: u64 = 60;

const PROBE_KILLS: Check = Check {
    id: "probe-kills-recovery",
    title: "A probe kills the database while it recovers",
    family: Family::Liveness,
    severity: Severity::Critical,
    needs: &[Source::Kubernetes, Source::Database],
    reason: "After a crash PostgreSQL replays its log and refuses connections meanwhile. A liveness probe that takes this for death kills it, recovery \
             begins anew, and it never comes up: an outage that ends by itself becomes one that can't.",
    limits: "Five minutes are taken for enough; a database with a large max_wal_size may need more.",
    run: probe_kills,
};

fn probe_kills(facts: &Facts) -> Vec<Finding> {
    let findings = facts.databases().filter(|workload| workload.origin == Origin::Kubernetes).filter_map(|workload| {
        let container = workload.database_container()?;
        let liveness = container.liveness.as_ref()?;
        let (probe, name) = container.startup.as_ref().map_or((liveness, "liveness"), |startup| (startup, "startup"));
        let patience = probe.patience();
        if patience >= RECOVERY_PATIENCE {
            return None;
        }
        let message = format!("{}: its {name} probe kills it {} after it was started, recovery or not", workload.object(), span(patience));
        let said = format!("{name} probe: {} s delay, {} failures, every {} s", probe.delay, probe.failures, probe.period);
        let fix = "startupProbe:  # an hour, and longer where max_wal_size is large\n  exec:\n    command: [pg_isready, -U, postgres]\n  periodSeconds: 10\n  failureThreshold: 360";
        Some(PROBE_KILLS.found(workload.object(), message, vec![shows(&probe.place, said)], change(workload, container, fix, "", "")))
    });
    findings.collect()
}

const ROLLING: Check = Check {
    id: "rolling-update-on-single-volume",
    title: "A new pod waits for a volume that the old one holds",
    family: Family::Liveness,
    severity: Severity::High,
    needs: &[Source::Kubernetes, Source::Workloads],
    reason: "The database was a Deployment with one ReadWriteOnce volume and a rolling update. On another node the new pod waits for the volume, the old \
             one waits for the new; on the same node two servers open one data directory. In July volumes would not mount for hours.",
    limits: "Asked where the claim is in the set, so that its access mode is known.",
    run: rolling,
};

fn rolling(facts: &Facts) -> Vec<Finding> {
    let rolls = |workload: &&Workload| {
        workload.kind == "Deployment" && workload.strategy.as_ref().is_none_or(|strategy| strategy.value != "Recreate")
    };
    let findings = facts.lasting().filter(rolls).filter_map(|workload| {
        let (mounted, claim) = workload.claims.iter().find_map(|mounted| {
            let claim = facts.claim(workload.namespace.as_deref(), &mounted.value)?;
            let single = !claim.modes.is_empty() && claim.modes.iter().all(|mode| mode.starts_with("ReadWriteOnce"));
            single.then_some((mounted, claim))
        })?;
        let message = format!(
            "{} rolls its update over the volume of claim {}, which one node can mount",
            workload.object(),
            claim.name
        );
        let strategy = match &workload.strategy {
            Some(strategy) => strategy.evidence("strategy"),
            None => shows(&workload.place, "no strategy: RollingUpdate"),
        };
        let evidence = vec![
            strategy,
            shows(&mounted.place, format!("claimName: {}", claim.name)),
            shows(&claim.place, format!("accessModes: {}", claim.modes.join(", "))),
        ];
        Some(ROLLING.found(
            workload.object(),
            message,
            evidence,
            Remedy::Patch("spec:\n  strategy:\n    type: Recreate\n    rollingUpdate: null".to_owned()),
        ))
    });
    findings.collect()
}

const NO_PROBES: Check = Check {
    id: "no-probes",
    title: "Nobody asks whether it still works",
    family: Family::Liveness,
    severity: Severity::High,
    needs: &[Source::Workloads],
    reason: "13 of 13 deployments had no probe. PostgreSQL ran and answered nobody, and for the cluster all was well; after the restart the services that \
             had come up without their database stayed broken until people restarted each by hand.",
    limits: "One probe of any kind in one container is enough. Not asked of jobs and of units of systemd.",
    run: no_probes,
};

fn no_probes(facts: &Facts) -> Vec<Finding> {
    let unasked = |workload: &&Workload| {
        workload.origin != Origin::Systemd
            && workload.main_containers().next().is_some()
            && workload.main_containers().all(|c| c.startup.is_none() && c.liveness.is_none() && c.readiness.is_none())
    };
    let findings = facts.lasting().filter(unasked).filter_map(|workload| {
        let container = workload.database_container()?;
        let engine = workload.engine();
        let probe = match engine {
            Some(Engine::Postgres) => "[pg_isready, -U, postgres]",
            Some(Engine::Redis) => "[redis-cli, ping]",
            Some(Engine::MySql) => "[mysqladmin, ping]",
            Some(Engine::Mongo) => "[mongosh, --eval, db.hello()]",
            None => "",
        };
        let kubernetes = match (engine, container.ports.first()) {
            (Some(_), _) => format!("readinessProbe:\n  exec:\n    command: {probe}\nstartupProbe:\n  exec:\n    command: {probe}\n  periodSeconds: 10\n  failureThreshold: 360"),
            (None, Some(port)) => format!("readinessProbe:\n  httpGet:  # or tcpSocket\n    path: /healthz\n    port: {}", port.number),
            (None, None) => "livenessProbe:\n  exec:\n    command: [...]  # what proves that it works, not that it runs\n  periodSeconds: 30".to_owned(),
        };
        let test = if probe.is_empty() { "[CMD, ...]".to_owned() } else { probe.replacen('[', "[CMD, ", 1) };
        let message = format!("{} has no probe: when it hangs it is left hanging, and gets requests", workload.object());
        let remedy = change(workload, container, &kubernetes, &format!("healthcheck:\n  test: {test}"), "");
        let finding = NO_PROBES.found(workload.object(), message, vec![shows(&container.place, format!("container {}: no probe", container.name))], remedy);
        Some(if engine.is_some_and(Engine::holds_data) { finding } else { finding.at_most(Severity::Medium) })
    });
    findings.collect()
}

const ALWAYS_PULL: Check = Check {
    id: "always-pull",
    title: "Every start asks the registry",
    family: Family::Liveness,
    severity: Severity::Medium,
    needs: &[Source::Workloads],
    reason: "The database's image was pulled at every start (imagePullPolicy: Always). After a restart the cluster's name service was the thing that did \
             not work: nothing that has to reach a registry starts then, though its image lies on the node.",
    limits: "Floating tags pull always as well, without saying so: `floating-image`.",
    run: always_pull,
};

fn always_pull(facts: &Facts) -> Vec<Finding> {
    let findings = facts.lasting().filter_map(|workload| {
        let container = workload
            .containers
            .iter()
            .find(|c| c.pull.as_ref().is_some_and(|pull| pull.value.eq_ignore_ascii_case("always")))?;
        let pull = container.pull.as_ref()?;
        let message = format!("{} can start only while its registry answers", workload.object());
        let remedy = change(
            workload,
            container,
            "imagePullPolicy: IfNotPresent  # with a tag that never moves, or a digest",
            "pull_policy: missing",
            "",
        );
        let finding = ALWAYS_PULL.found(workload.object(), message, vec![pull.evidence("imagePullPolicy")], remedy);
        Some(if workload.engine().is_some() { finding } else { finding.at_most(Severity::Low) })
    });
    findings.collect()
}

const DOWNLOADS: Check = Check {
    id: "downloads-at-start",
    title: "It fetches something before it runs",
    family: Family::Liveness,
    severity: Severity::Medium,
    needs: &[Source::Workloads],
    reason: "After the restart name service and network were the last to come back. What installs packages or clones a repository when it starts comes \
             back later still, or not at all.",
    limits: "Known by the words of commands and arguments; what an image's own start script does is not seen.",
    run: downloads,
};

const FETCHING: &[&str] = &[
    "pip install",
    "pip3 install",
    "apt-get install",
    "apt install",
    "apk add",
    "npm install",
    "npm ci",
    "yarn install",
    "git clone",
    "curl http",
    "curl -l http",
    "wget http",
    "bundle install",
    "go install",
];

fn downloads(facts: &Facts) -> Vec<Finding> {
    let findings = facts.lasting().filter(|w| w.origin != Origin::Systemd).filter_map(|workload| {
        let (container, mark) = workload.containers.iter().find_map(|container| {
            let words = container.command.join(" ").to_lowercase();
            FETCHING.iter().find(|mark| words.contains(*mark)).map(|mark| (container, *mark))
        })?;
        let place = container.command_place.as_ref().unwrap_or(&container.place);
        let message =
            format!("{} runs `{mark}` at every start: without the internet it does not start", workload.object());
        let remedy = Remedy::Advice("Build it into the image, so that a start needs nothing but the node.".to_owned());
        Some(DOWNLOADS.found(workload.object(), message, vec![shows(place, mark)], remedy))
    });
    findings.collect()
}

const FLOATING: Check = Check {
    id: "floating-image",
    title: "The same name may be another image tomorrow",
    family: Family::Liveness,
    severity: Severity::Medium,
    needs: &[Source::Workloads],
    reason: "A restart in the middle of an outage is the worst moment to get a new version. With latest, main or no tag at all that is what a restart is; \
             of a database it may be another major version, which does not open the old data.",
    limits: "Tags of compose files that come from a variable are not judged.",
    run: floating,
};

fn floating(facts: &Facts) -> Vec<Finding> {
    let findings = facts.lasting().flat_map(|workload| {
        let images = workload.containers.iter().filter_map(move |container| {
            Some((container, container.image.as_ref().filter(|image| image.value.floats())?))
        });
        images.map(move |(container, image)| {
            let message = format!(
                "{} runs {}, which is whatever was pushed last",
                workload.object(),
                crate::words::shown(&image.value.text)
            );
            let pinned =
                crate::words::shown(&format!("{}:<version>", image.value.text.split(':').next().unwrap_or_default()));
            let patch = format!("image: {pinned}  # or a digest: @sha256:...");
            let finding = FLOATING.found(
                format!("{}/{}", workload.object(), container.name),
                message,
                vec![image.evidence("image")],
                change(workload, container, &patch, &patch, ""),
            );
            if workload.engine().is_some_and(Engine::holds_data) { finding } else { finding.at_most(Severity::Low) }
        })
    });
    findings.collect()
}

const SHORT_GRACE: Check = Check {
    id: "short-grace",
    title: "A database is killed before it has shut down",
    family: Family::Liveness,
    severity: Severity::Medium,
    needs: &[Source::Database],
    reason: "A database that is killed recovers at its next start, which is when everybody waits for it. Its last checkpoint has to write all of \
             shared_buffers that changed, on a disk that is as busy as that day.",
    limits: "A minute is taken for enough. Defaults count: 30 seconds of Kubernetes, 10 of compose, 90 of systemd.",
    run: short_grace,
};

fn short_grace(facts: &Facts) -> Vec<Finding> {
    let findings = facts.databases().filter_map(|workload| {
        let default = match workload.origin {
            Origin::Kubernetes => 30,
            Origin::Compose => 10,
            Origin::Systemd => 90,
        };
        let grace = workload.grace.as_ref().map_or(default, |grace| grace.value);
        if grace >= GRACE_MIN {
            return None;
        }
        let place = workload.grace.as_ref().map_or(&workload.place, |grace| &grace.place);
        let said = if workload.grace.is_some() { span(grace) } else { format!("nothing said: {}", span(grace)) };
        let message = format!("{} has {} to shut down before it is killed", workload.object(), span(grace));
        let remedy = match workload.origin {
            Origin::Kubernetes => Remedy::Patch(pod(workload, "terminationGracePeriodSeconds: 120")),
            _ => change(workload, workload.database_container()?, "", "stop_grace_period: 2m", "TimeoutStopSec=120"),
        };
        Some(SHORT_GRACE.found(workload.object(), message, vec![shows(place, said)], remedy))
    });
    findings.collect()
}

/// The workloads that a route leads to: people notice when one is gone.
pub(super) fn routed(facts: &Facts) -> HashSet<*const Workload> {
    let backends = facts.routes.iter().flat_map(|route| route.backends.iter().map(move |backend| (route, backend)));
    let named: HashSet<(Option<&str>, &str)> = backends
        .map(|(route, b)| (b.namespace.as_deref().or(route.namespace.as_deref()), b.service.as_str()))
        .collect();
    let is_named = |name: &str, namespace: Option<&str>| {
        named.iter().any(|(other, service)| *service == name && same_namespace(*other, namespace))
    };
    let services = facts.services.iter().filter(|service| is_named(&service.name, service.namespace.as_deref()));
    services.flat_map(|service| facts.behind(service)).map(std::ptr::from_ref).collect()
}

/// Two or more of it, as far as the files tell.
fn is_doubled(facts: &Facts, workload: &Workload) -> bool {
    workload.replicas.as_ref().is_some_and(|replicas| replicas.value > 1)
        || facts.scaled.contains(&format!("{}/{}", workload.kind, workload.name))
}

const SINGLE: Check = Check {
    id: "single-replica",
    title: "What people reach runs once",
    family: Family::Liveness,
    severity: Severity::Low,
    needs: &[Source::Kubernetes, Source::Workloads, Source::Routes],
    reason: "The site ran once. While its only pod moved to another node, everything that asks its API was down with it.",
    limits: "Asked of deployments that a route leads to and that hold no volume; a bot that must run once is not meant.",
    run: single,
};

fn single(facts: &Facts) -> Vec<Finding> {
    let routed = routed(facts);
    let once = |workload: &&Workload| {
        workload.kind == "Deployment"
            && workload.claims.is_empty()
            && !is_doubled(facts, workload)
            && routed.contains(&std::ptr::from_ref(*workload))
    };
    let findings = facts.lasting().filter(once).map(|workload| {
        let evidence = match &workload.replicas {
            Some(replicas) => replicas.evidence("replicas"),
            None => shows(&workload.place, "no replicas: 1"),
        };
        SINGLE.found(
            workload.object(),
            format!("{} is one pod behind a public name", workload.object()),
            vec![evidence],
            Remedy::Patch("spec:\n  replicas: 2".to_owned()),
        )
    });
    findings.collect()
}

const NO_BUDGET: Check = Check {
    id: "no-disruption-budget",
    title: "Maintenance may take all replicas at once",
    family: Family::Liveness,
    severity: Severity::Low,
    needs: &[Source::Kubernetes, Source::Workloads],
    reason: "Nodes were drained and recycled in every one of the sibling incidents. Without a budget a drain may evict all replicas of a service together.",
    limits: "Asked of what has two or more replicas: a budget for a single one only blocks the drain.",
    run: no_budget,
};

fn no_budget(facts: &Facts) -> Vec<Finding> {
    let covered = |workload: &Workload| {
        facts.budgets.iter().any(|budget| {
            same_namespace(budget.namespace.as_deref(), workload.namespace.as_deref())
                && selected(&budget.labels, &workload.labels)
        })
    };
    let open = facts
        .lasting()
        .filter(|w| matches!(w.kind.as_str(), "Deployment" | "StatefulSet") && is_doubled(facts, w) && !covered(w));
    let findings = open.map(|workload| {
        let labels: String = workload.labels.iter().take(1).map(|(key, value)| format!("      {key}: {value}\n")).collect();
        let patch = format!("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: {}\nspec:\n  maxUnavailable: 1\n  selector:\n    matchLabels:\n{labels}", workload.name);
        NO_BUDGET.found(workload.object(), format!("{} has several replicas and no disruption budget", workload.object()), vec![shows(&workload.place, "no PodDisruptionBudget selects it")], Remedy::Patch(patch))
    });
    findings.collect()
}
