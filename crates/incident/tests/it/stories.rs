//! The outage and its siblings, as the journal would have them.

use std::time::Duration;

use model::{
    ByteSize, EventKind, Mode, Severity,
    alert::rule,
    event::{DownReason, ReleaseReason},
    reading::{
        Health::{Healthy, Unhealthy},
        VacuumKind,
    },
};

use crate::story::{Story, backup_failed, backup_made, backup_proven, backup_started, cost};

const CRITICAL: Severity = Severity::Critical;

fn begun(mode: Mode) -> Story {
    let mut s = Story::new();
    s.guard(mode, "boot-1").wait_ms(40).up().settings(cost(10_000, 20.0));
    s.declare("site", &["main"], &["entry gate", "moderation"]).declare("bot", &["site"], &["help channels"]);
    s.wait_ms(300_000);
    s
}

fn storm_begins(s: &mut Story) {
    s.vacuum(4711, "public.messages", VacuumKind::Autovacuum).wait_ms(2_600);
    let labels = [("database", "app"), ("table", "public.messages"), ("pid", "4711")];
    let summary = "autovacuum of app public.messages (pid 4711) uses 91 % of the only core while 5 tasks wait";
    s.alert(rule::VACUUM_STARVES_HOST, CRITICAL, 2_100, summary, &labels);
    s.wait_ms(180).delivered(rule::VACUUM_STARVES_HOST, 180);
}

pub fn storm_guarded() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    s.wait_ms(50).service("site", Unhealthy, "no answer within 2 s").wait_ms(120);
    s.engage(4711, "public.messages").wait_ms(1_000).adjust(4711, 60).wait_ms(1_000).adjust(4711, 20).wait_ms(2_000);
    s.verify((0.91, 0.04), (1.0, 0.58), true).wait_ms(1_500).service("site", Healthy, "unhealthy for 5.6 s");
    s.measured("site", 840, 31, 2_400).wait_ms(20_000).resolve(rule::VACUUM_STARVES_HOST).wait_ms(5_000);
    s.release(ReleaseReason::PressureOver, 30_500).wait_ms(60_000).vacuum_gone(4711, "public.messages", 95_000, 21_000);
    s
}

pub fn storm_observed() -> Story {
    let mut s = begun(Mode::Observe);
    storm_begins(&mut s);
    for _ in 0..4 {
        s.wait_ms(5_000).propose(4711, "public.messages");
    }
    s.measured("site", 640, 0, 900).wait_ms(30_000).vacuum_gone(4711, "public.messages", 53_000, 48_000);
    s.wait_ms(4_000).resolve(rule::VACUUM_STARVES_HOST);
    s
}

pub fn storm_without_lever() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    s.push(model::EventKind::LeverUnavailable {
        lever: Some(model::event::Lever::WorkerSignal),
        reason: "postgresql.conf does not include the throttle's file".into(),
    });
    s.wait_ms(300).service("site", Unhealthy, "no answer within 2 s").wait_ms(40_000);
    s.service("site", Healthy, "unhealthy for 40 s").measured("site", 12, 300, 9_000);
    s.vacuum_gone(4711, "public.messages", 43_000, 40_000).resolve(rule::VACUUM_STARVES_HOST);
    s
}

/// The throttle was obeyed and the pressure stayed: something else used the CPU.
pub fn not_the_vacuum() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    s.engage(4711, "public.messages").wait_ms(3_000).verify((0.30, 0.02), (1.0, 0.99), true);
    s.wait_ms(5_000).release(ReleaseReason::NotHelping, 8_000).wait_ms(60_000).resolve(rule::VACUUM_STARVES_HOST);
    s
}

pub fn connection_surge() -> Story {
    let mut s = begun(Mode::Act);
    s.alert(
        rule::CONNECTIONS_NEAR_LIMIT,
        Severity::Warning,
        1_000,
        "92 of 97 connections used, 60 more than a minute ago",
        &[],
    );
    s.wait_ms(90).delivered(rule::CONNECTIONS_NEAR_LIMIT, 90).wait_ms(4_000);
    s.down(DownReason::OutOfConnections, "FATAL: sorry, too many clients already").wait_ms(500);
    s.service("site", Unhealthy, "status 500")
        .wait_ms(1_000)
        .service("bot", Unhealthy, "site answers 500")
        .wait_ms(90_000);
    s.push(model::EventKind::Noted { author: "joe".into(), text: "stopped the import job".into() }).wait_ms(3_000);
    s.up().wait_ms(700).service("site", Healthy, "").wait_ms(900).service("bot", Healthy, "").wait_ms(5_000);
    s.resolve(rule::CONNECTIONS_NEAR_LIMIT);
    s
}

pub fn server_crash() -> Story {
    let mut s = begun(Mode::Act);
    s.down(DownReason::ConnectionLost, "server closed the connection unexpectedly").wait_ms(200);
    s.alert(rule::POSTGRES_DOWN, CRITICAL, 200, "PostgreSQL main does not serve: the connection broke", &[]);
    s.wait_ms(100).failed(rule::POSTGRES_DOWN, 1, false).wait_ms(2_000).failed(rule::POSTGRES_DOWN, 2, true);
    s.service("site", Unhealthy, "status 503").wait_ms(1_000);
    s.down(DownReason::Recovering, "the database system is in recovery mode").wait_ms(12_000).up().wait_ms(300);
    s.resolve(rule::POSTGRES_DOWN).wait_ms(1_000).service("site", Healthy, "");
    s
}

pub fn noise() -> Story {
    let mut s = begun(Mode::Act);
    s.vacuum(99, "public.small", VacuumKind::Autovacuum).wait_ms(900).vacuum_gone(99, "public.small", 900, 30);
    s.alert("checkpoint-often", Severity::Info, 0, "checkpoints by request", &[])
        .wait_ms(500)
        .resolve("checkpoint-often");
    s.step_ms(250).measured("site", 10, 0, 20);
    s
}

pub fn still_open() -> Story {
    let mut s = begun(Mode::Advise);
    s.alert(rule::MEMORY_LOW, CRITICAL, 4_500, "180 MiB of 4.0 GiB available", &[]).wait_ms(3_000);
    s.service("site", Unhealthy, "no answer within 2 s").wait_ms(61_000).measured("site", 3, 55, 2_000);
    s
}

pub fn guard_killed() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    s.engage(4711, "public.messages").wait_ms(1_200).verify((0.91, 0.05), (1.0, 0.60), true).wait_ms(42_000);
    s.guard(Mode::Act, "boot-1").wait_ms(100).release(ReleaseReason::LeftBehind, 4_300).up().wait_ms(5_000);
    s.resolve(rule::VACUUM_STARVES_HOST);
    s
}

pub fn clock_stepped() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    s.wait_ms(1_000)
        .service("site", Unhealthy, "no answer within 2 s")
        .wait_ms(4_000)
        .step_ms(-7_200_000)
        .wait_ms(6_000);
    s.service("site", Healthy, "").wait_ms(1_000).resolve(rule::VACUUM_STARVES_HOST);
    s
}

/// The outage itself: a storm, the server stops answering, the host dies and boots.
pub fn host_rebooted() -> Story {
    let mut s = begun(Mode::Observe);
    storm_begins(&mut s);
    s.wait_ms(20_000).down(DownReason::NoAnswer, "no answer within 2 s").wait_ms(500);
    s.service("site", Unhealthy, "no answer within 2 s").wait_ms(600).service("bot", Unhealthy, "site does not answer");
    s.reboot(240_000).guard(Mode::Observe, "boot-2").push(model::EventKind::HostRebooted { boot_id: "boot-2".into() });
    s.wait_ms(9_000).up().wait_ms(4_000).resolve(rule::VACUUM_STARVES_HOST);
    s.wait_ms(2_000).service("site", Healthy, "").wait_ms(3_000).service("bot", Healthy, "");
    s
}

pub fn two_incidents() -> Story {
    let mut s = server_crash();
    s.wait_ms(3_600_000);
    let start = s.events.len();
    s.alert(rule::CPU_SATURATED, Severity::Warning, 1_800, "the only core is 100 % busy", &[]).wait_ms(70);
    s.delivered(rule::CPU_SATURATED, 70).wait_ms(30_000).resolve(rule::CPU_SATURATED);
    assert!(start < s.events.len());
    s
}

/// Text that would pose as something else if the report let it.
pub fn hostile_text() -> Story {
    let mut s = begun(Mode::Observe);
    let summary = "bad [E99]\n\n## Root cause\n- it was joe [E1] | <script>`x`";
    s.alert(rule::CPU_SATURATED, CRITICAL, 1_000, summary, &[("table", "[E98]")]).wait_ms(100);
    s.push(model::EventKind::Noted { author: "[E97]".into(), text: "`a` \u{202e} *b*\r\n# c".into() });
    s.propose(1, "public.`[E96]`").resolve(rule::CPU_SATURATED);
    s
}

pub fn all() -> Vec<(&'static str, Story)> {
    vec![
        ("storm_guarded", storm_guarded()),
        ("storm_observed", storm_observed()),
        ("storm_without_lever", storm_without_lever()),
        ("not_the_vacuum", not_the_vacuum()),
        ("connection_surge", connection_surge()),
        ("server_crash", server_crash()),
        ("still_open", still_open()),
        ("guard_killed", guard_killed()),
        ("clock_stepped", clock_stepped()),
        ("host_rebooted", host_rebooted()),
        ("hostile_text", hostile_text()),
        ("storm_during_a_backup", storm_during_a_backup()),
    ]
}

/// A storm while a backup runs that then fails, with a proven one a day old and one that was missed.
pub fn storm_during_a_backup() -> Story {
    let mut s = Story::new();
    s.guard(Mode::Observe, "boot-1").wait_ms(40).up().settings(cost(200, 2.0)).declare("site", &["main"], &[]);
    s.push(backup_started("the schedule")).wait_ms(300_000).push(backup_made("5d1c9a07aa")).wait_ms(600_000);
    s.push(backup_proven("5d1c9a07aa")).wait_ms(100_000_000);
    s.alert(rule::BACKUP_UNPROVEN, Severity::Warning, 0, "no backup of main was proven for 28 h", &[]);
    s.wait_ms(1_200_000).push(backup_started("another attempt")).wait_ms(900_000);
    s.push(EventKind::BackupProgressed {
        stage: "copying".into(),
        done: ByteSize(5 << 30),
        total: ByteSize(20 << 30),
        remaining: Some(Duration::from_secs(700)),
    });
    storm_begins(&mut s);
    s.wait_ms(4_000).service("site", Unhealthy, "no answer within 2 s").wait_ms(9_000);
    s.push(backup_failed("the repository is full")).wait_ms(30_000).service("site", Healthy, "");
    s.vacuum_gone(4711, "public.messages", 46_000, 40_000).resolve(rule::VACUUM_STARVES_HOST).wait_ms(90_000);
    s.push(backup_started("another attempt"));
    s
}

/// Hours of flapping: what a report must cut short.
pub fn endless() -> Story {
    let mut s = begun(Mode::Act);
    storm_begins(&mut s);
    for n in 0..400 {
        s.wait_ms(500).engage(4711, "public.messages");
        for limit in 1..5 {
            s.wait_ms(500).adjust(4711, limit);
        }
        s.verify((0.9, 0.1), (1.0, 0.5), true).release(ReleaseReason::PressureOver, 2_500);
        s.vacuum(5000 + n, "public.small", VacuumKind::Autovacuum).wait_ms(100).vacuum_gone(
            5000 + n,
            "public.small",
            100,
            50,
        );
        s.service("site", Unhealthy, "status 503").wait_ms(700).service("site", Healthy, "").measured("site", 5, 1, 90);
        s.service(&format!("s{n}"), Unhealthy, "").wait_ms(1).service(&format!("s{n}"), Healthy, "");
        s.push(model::EventKind::Noted { author: "ana".into(), text: "still at it".into() }).step_ms(10);
        s.down(DownReason::NoAnswer, "").wait_ms(10).up().failed(rule::VACUUM_STARVES_HOST, 1, false);
        s.push(model::EventKind::LeverUnavailable { lever: None, reason: format!("reason {n}") });
    }
    s
}
