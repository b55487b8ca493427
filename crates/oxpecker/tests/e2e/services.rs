//! `oxpecker service ...` as a person uses it: the plan, what carries it out, approvals, and what can't be reached.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    process::{Command, Output},
    time::Instant,
};

use serde_json::Value;

use crate::{
    harness::{PATIENCE, Place, cluster, oxpecker, said},
    recovery_run::{Stage, up},
};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Steps of a plan: what is done to whom.
fn steps(document: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let steps = document["steps"].as_array().unwrap_or_else(|| panic!("no steps in {document}")).iter();
    steps.map(|step| format!("{} {}", text(&step["action"]), text(&step["service"]))).collect()
}

#[test]
fn a_plan_is_shown_rehearsed_carried_out_and_then_empty() {
    let Some(cluster) = cluster(&[]) else { return };
    let needs_cache = format!("test -e cache.up || exit 1; {}", up("site"));
    let stage =
        Stage::new(&cluster.url("postgres"), "", &[("site", &["cache"], &needs_cache), ("cache", &[], &up("cache"))]);
    let place = &stage.place;

    let plan = place.ask(&["service", "plan"]);
    assert_eq!(code(&plan), Some(1), "{}", said(&plan));
    let text = said(&plan);
    let (cache, site) = (text.find("start cache").expect(&text), text.find("start site").expect(&text));
    assert!(cache < site, "in order: {text}");
    assert_eq!(steps(&place.json(&["service", "plan"])), ["start cache", "start site"]);
    let rehearsed = place.ask(&["service", "apply", "--dry-run"]);
    assert_eq!(code(&rehearsed), Some(1), "{}", said(&rehearsed));
    assert!(!place.path().join("starts").exists(), "nothing was started");

    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(0), "{}", said(&applied));
    assert_eq!(fs::read_to_string(place.path().join("starts")).unwrap(), "cache\nsite\n");
    let again = place.ask(&["service", "apply"]);
    assert_eq!(code(&again), Some(0), "{}", said(&again));
    assert_eq!(fs::read_to_string(place.path().join("starts")).unwrap(), "cache\nsite\n", "nothing was done twice");
    let list = place.ask(&["service", "list"]);
    assert_eq!(code(&list), Some(0), "{}", said(&list));
    assert!(steps(&place.json(&["service", "plan"])).is_empty());
}

#[test]
fn an_apply_that_is_killed_is_gone_on_with_and_two_are_one() {
    let Some(cluster) = cluster(&[]) else { return };
    // Well once the test says so.
    let slow = "until test -e go; do sleep 0.05; done; touch cache.up; exec sleep 1000000";
    let stage = Stage::new(&cluster.url("postgres"), "", &[("site", &["cache"], &up("site")), ("cache", &[], slow)]);
    let place = &stage.place;
    let config = place.path().join("oxpecker.toml");
    let mut first = oxpecker();
    let mut first = first
        .current_dir(place.path())
        .arg("--config")
        .arg(&config)
        .args(["--quiet", "service", "apply"])
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !place.path().join("starts").exists() {
        assert!(began.elapsed() < PATIENCE, "nothing was started");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let second = place.ask(&["service", "apply"]);
    assert_eq!(code(&second), Some(3), "{}", said(&second));
    assert!(String::from_utf8_lossy(&second.stderr).contains("hint"), "{}", said(&second));
    first.kill().unwrap();
    first.wait().unwrap();
    fs::write(place.path().join("go"), "").unwrap();
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(0), "{}", said(&applied));
    assert_eq!(fs::read_to_string(place.path().join("starts")).unwrap(), "cache\nsite\n", "each once");
}

#[test]
fn what_was_removed_waits_for_an_approval_of_that_very_plan() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "", &[("site", &[], &up("site"))]);
    let place = &stage.place;
    let config = place.path().join("oxpecker.toml");
    // Its directory is what there is of it: it lives elsewhere, and is gone.
    let home = place.path().join("home");
    let text = fs::read_to_string(&config).unwrap();
    let at = |of: &std::path::Path| format!("directory = {:?}", of.display().to_string());
    assert!(text.contains(&at(place.path())), "{text}");
    let text = text.replace(&at(place.path()), &at(&home)).replace("touch site.up", "touch ../site.up");
    fs::write(&config, &text).unwrap();

    let plan = place.json(&["service", "plan"]);
    assert_eq!(steps(&plan), ["provision site"], "{plan}");
    let hash = plan["approve"]["plan"].as_str().unwrap_or_else(|| panic!("no hash in {plan}")).to_owned();
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(1), "{}", said(&applied));
    assert!(said(&applied).contains(&format!("oxpecker approve {hash}")), "{}", said(&applied));
    assert!(!home.exists(), "nothing was made");

    let wrong = place.ask(&["approve", "0123456789ab", "--by", "eva"]);
    assert_eq!(code(&wrong), Some(3), "{}", said(&wrong));
    let garbage = place.ask(&["approve", "no hash", "--by", "eva"]);
    assert!(matches!(code(&garbage), Some(2 | 3)), "{}", said(&garbage));
    let approved = place.ask(&["approve", &hash, "--by", "eva"]);
    assert_eq!(code(&approved), Some(0), "{}", said(&approved));
    // What was approved is another thing now.
    fs::write(&config, text.replace("sleep 1000000", "sleep 2000000")).unwrap();
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(1), "{}", said(&applied));
    assert!(!home.exists(), "nothing was made");
    fs::write(&config, &text).unwrap();
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(0), "{}", said(&applied));
    assert!(home.exists());
}

#[test]
fn an_approval_whose_hour_is_over_is_none() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(&cluster.url("postgres"), "", &[("site", &[], &up("site"))]);
    let place = &stage.place;
    let config = place.path().join("oxpecker.toml");
    let home = place.path().join("home");
    let text = fs::read_to_string(&config).unwrap();
    let at = |of: &std::path::Path| format!("directory = {:?}", of.display().to_string());
    let text = text.replace(&at(place.path()), &at(&home)).replace("touch site.up", "touch ../site.up");
    fs::write(&config, &text).unwrap();

    let plan = place.json(&["service", "plan"]);
    let hash = plan["approve"]["plan"].as_str().unwrap_or_else(|| panic!("no hash in {plan}")).to_owned();
    let approval = place.json(&["approve", &hash, "--by", "eva"]);
    let until = approval["approval"]["until"].as_str().unwrap_or_else(|| panic!("no end in {approval}")).to_owned();
    assert_eq!(steps(&place.json(&["service", "plan"])), ["provision site"], "approved, it is still to be done");
    // The hour is over: what was written down is moved back, as nobody waits that long.
    let file = place.state_dir().join("services/approvals.json");
    let written = fs::read_to_string(&file).unwrap();
    assert!(written.contains(&until), "{written}");
    fs::write(&file, written.replace(&until, "2020-01-01T00:00:00Z")).unwrap();
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(1), "{}", said(&applied));
    assert!(said(&applied).contains(&format!("oxpecker approve {hash}")), "{}", said(&applied));
    assert!(!home.exists(), "nothing was made");
    fs::write(&file, written).unwrap();
    let applied = place.json(&["service", "apply"]);
    assert_eq!(applied["outcome"], "done", "{applied}");
    assert_eq!(applied["did"][0]["action"], "provision", "{applied}");
    assert!(home.exists());
}

#[test]
fn one_that_is_given_up_is_a_persons_and_is_told_with_what_to_do() {
    let Some(cluster) = cluster(&[]) else { return };
    let stage = Stage::new(
        &cluster.url("postgres"),
        "",
        &[("site", &["login"], &up("site")), ("login", &[], "exit 3"), ("cache", &[], &up("cache"))],
    );
    let place = &stage.place;
    let applied = place.ask(&["service", "apply"]);
    assert_eq!(code(&applied), Some(4), "{}", said(&applied));
    assert!(place.path().join("cache.up").exists(), "the rest: {}", said(&applied));
    let starts = || fs::read_to_string(place.path().join("starts")).unwrap();
    let logins = || starts().lines().filter(|line| *line == "login").count();
    assert_eq!((logins(), starts().contains("site")), (2, false), "two attempts, and nothing that needs it");
    let plan = place.ask(&["service", "plan"]);
    assert_eq!(code(&plan), Some(1), "{}", said(&plan));
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(text.starts_with("A person is needed: 2 of 4 services not well."), "{text}");
    for what in ["site: needs login", "oxpecker service logs login", "oxpecker service apply --again"] {
        assert!(text.contains(what), "{what}: {text}");
    }
    // Nobody looked: no third attempt.
    let applied = place.ask(&["service", "apply"]);
    assert_eq!((code(&applied), logins()), (Some(1), 2), "{}", said(&applied));
    // Mended, and said so.
    let config = place.path().join("oxpecker.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("exit 3"), "{text}");
    fs::write(&config, text.replace("exit 3", &up("login"))).unwrap();
    let applied = place.ask(&["service", "apply", "--again"]);
    assert_eq!(code(&applied), Some(0), "{}", said(&applied));
    assert!(starts().ends_with("login\nsite\n"), "{}", starts());
}

#[test]
fn what_cannot_be_reached_is_said_and_the_rest_comes_back() {
    let Some(cluster) = cluster(&[]) else { return };
    // Where half of the services can't be seen, nothing is done: here it is less.
    let stage = Stage::new(&cluster.url("postgres"), "", &[("site", &[], &up("site")), ("cache", &[], &up("cache"))]);
    let place = &stage.place;
    let config = place.path().join("oxpecker.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    let gone = place.path().join("gone.sock").display().to_string();
    // Somebody who takes connections and never says a word of Docker's or D-Bus's.
    let silent = place.path().join("silent.sock");
    let _listener = UnixListener::bind(&silent).unwrap();
    let silent = silent.display();
    text.push_str(&format!(
        "\n[recovery]\nwithout_progress = \"3s\"\n[[service]]\nname = \"unit\"\ndriver = \"systemd\"\nunit = \"nothing-of-ours.service\"\nbus = \"unix:path={gone}\"\n\
         [[service]]\nname = \"mute\"\ndriver = \"systemd\"\nunit = \"nothing-of-ours.service\"\nbus = \"unix:path={silent}\"\n\
         [[service]]\nname = \"box\"\ndriver = \"docker\"\ncontainer = \"nothing-of-ours\"\nsocket = {gone:?}\n\
         [[service]]\nname = \"far\"\nstarts_in = \"1s\"\nhealth = {{ http = \"http://127.0.0.1:1/\" }}\n"
    ));
    fs::write(&config, text).unwrap();
    let applied = place.ask(&["service", "apply"]);
    assert!(matches!(code(&applied), Some(1 | 4)), "{}", said(&applied));
    for name in ["site", "cache"] {
        assert!(place.path().join(format!("{name}.up")).exists(), "{name}: {}", said(&applied));
    }
    let list = place.ask(&["service", "list"]);
    assert_eq!(code(&list), Some(1), "{}", said(&list));
    let text = said(&list);
    for what in ["gone.sock", "silent.sock", "refused"] {
        assert!(text.contains(what), "{what}: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    let listed = place.json(&["service", "list"]);
    assert_eq!(listed["services"].as_array().map(Vec::len), Some(7), "{listed}");
}

#[test]
fn who_may_not_use_the_socket_or_the_files_is_told() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it takes root to become somebody who may less");
        return;
    }
    let place = Place::new();
    let socket = place.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let config = place.configure(
        "postgresql:///postgres?host=/nonexistent&user=nobody",
        &format!(
            "\n[[service]]\nname = \"box\"\ndriver = \"docker\"\ncontainer = \"box\"\nsocket = {:?}\n",
            socket.display().to_string()
        ),
    );
    fs::create_dir(place.state_dir()).unwrap();
    fs::set_permissions(place.state_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let asked = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(oxpecker().get_program());
        command.current_dir(place.path()).arg("--config").arg(&config).args(arguments).output().unwrap()
    };
    let list = asked(&["service", "list"]);
    if said(&list).contains("setpriv: ") || said(&list).contains("Permission denied (os error 13)\n") {
        println!("skipped: {}", said(&list));
        return;
    }
    assert_eq!(code(&list), Some(1), "{}", said(&list));
    assert!(said(&list).contains("docker.sock") && said(&list).contains("may not"), "{}", said(&list));
    fs::set_permissions(place.state_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let _ = fs::remove_dir_all(place.state_dir().join("services"));
    let applied = asked(&["service", "apply"]);
    assert!(matches!(code(&applied), Some(2 | 4)), "{}", said(&applied));
    assert!(said(&applied).contains("state") && said(&applied).contains("ermission"), "{}", said(&applied));
}

#[test]
fn hostile_names_reach_no_terminal_and_no_driver() {
    let place = Place::new();
    for (keys, what) in [
        ("name = \"a\\n\\u001b[31mb\"\nhealth = { tcp = \"127.0.0.1:1\" }", "is no name"),
        ("name = \"a\"\ndriver = \"systemd\"\nunit = \"x\\n\\u001b[31m.service\"", "is no name of a unit"),
        ("name = \"a\"\ndriver = \"systemd\"\nunit = \"../../etc/passwd.service\"", "is no name of a unit"),
        ("name = \"a\"\ndriver = \"docker\"\ncontainer = \"x; rm -rf /\\u001b[31m\"", "is no name of a container"),
        (
            "name = \"a\"\ndriver = \"docker\"\nproject = \"x\\u001b[31m/../y\"\nservice = \"z\"",
            "is no name of Compose",
        ),
        ("name = \"a\"\ndepends_on = [\"\\u001b[31mb\"]\nhealth = { tcp = \"127.0.0.1:1\" }", "not configured"),
        ("name = \"a\"\nhealth = { http = \"http://\\u001b[31m\\n/\" }", "health"),
    ] {
        place.configure("postgresql:///postgres?host=/nonexistent", &format!("\n[[service]]\n{keys}\n"));
        for arguments in [&["config", "check"][..], &["service", "plan"]] {
            let output = place.ask(arguments);
            let text = said(&output);
            assert!(!text.contains('\u{1b}'), "{keys}: {text:?}");
            // A plan may be made all the same: what can't be looked at is unknown.
            assert!(matches!(code(&output), Some(1 | 2)), "{keys}: {text}");
            if arguments[0] == "config" {
                assert_eq!(code(&output), Some(2), "{keys}: {text}");
                assert!(text.contains(what), "{keys}: {text}");
            }
        }
    }
}
