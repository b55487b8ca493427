//! What compose files tell.

use proptest::prelude::*;

use super::*;

fn edges(compose: &Compose) -> Vec<String> {
    let found = compose.found.iter();
    found.map(|one| format!("{} -> {} {} [{}]", one.service, one.need, one.place, one.what)).collect()
}

#[test]
fn every_way_to_say_it() {
    let text = "\
x-common: &common
  depends_on: [redis]
  environment: &env
    CACHE: redis://redis:6379/0
services:
  site:
    <<: *common
    environment:
      <<: *env
      DATABASE_URL: postgres://site:secret@db:5432/site
      OTHER: postgres://${HOST}/x
  bot:
    depends_on:
      site: {condition: service_healthy}
      redis: {condition: service_started, required: false}
      gone: {condition: service_started}
    links: ['db:database']
  side:
    network_mode: service:bot
    environment: ['API=http://site:8000/', 'EMPTY', 'SELF=http://side/']
  db: {image: postgres, hostname: DB}
  redis: {image: redis}
";
    let compose = parse("compose.yaml", text).unwrap();
    assert_eq!(
        edges(&compose),
        [
            "site -> redis compose.yaml:2 [depends_on]",
            "site -> redis compose.yaml:4 [environment CACHE: redis at redis:6379]",
            "site -> db compose.yaml:10 [environment DATABASE_URL: postgresql at db:5432]",
            "bot -> site compose.yaml:14 [depends_on (service_healthy)]",
            "bot -> redis compose.yaml:15 [depends_on (service_started)]",
            "bot -> db compose.yaml:17 [links]",
            "side -> bot compose.yaml:19 [network_mode]",
            "side -> site compose.yaml:20 [environment API: http at site:8000]",
        ]
    );
    assert_eq!(compose.notes.len(), 1, "{:?}", compose.notes);
    assert!(compose.notes[0].contains("\"gone\""));
    assert!(!format!("{compose:?}").contains("secret"));
}

#[test]
fn what_is_no_compose_file_says_so() {
    assert!(matches!(parse("a", "x: 1"), Err(Error::NoServices { .. })));
    assert!(matches!(parse("a", ""), Err(Error::NoServices { .. })));
    assert!(matches!(parse("a", "a: [1"), Err(Error::Unreadable { .. })));
    assert!(matches!(parse("a", &" ".repeat(BYTES_MAX + 1)), Err(Error::TooLarge { .. })));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", ")));
    }
    assert!(matches!(parse("a", &bomb), Err(Error::Unreadable { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "[ \\-a-z:\\[\\]{}&*<\n'\"|]{0,200}") {
        let _ = parse("f", &text);
        let _ = parse("f", &format!("services:\n  a:\n    depends_on: {text}"));
    }
}

#[test]
fn what_lies_beside_is_read_and_jobs_are_led_through() {
    let base = "\
name: shop
services:
  web:
    env_file: [web.env, {path: gone.env, required: false}, missing.env]
    command: [sh, -c, './wait-for-it.sh cache:6379 && serve']
    depends_on:
      migrate:
        condition: service_completed_successfully
    ports: ['127.0.0.1:${PORT:-8000}:80', '53:53/udp']
  migrate:
    depends_on: [db]
  db:
    image: docker.io/library/postgres:16
    ports: [{target: 5432, published: '5433'}]
    healthcheck: {test: pg_isready}
  cache: {image: redis, profiles: [fast]}
";
    let over = "services:\n  web:\n    environment:\n      POSTGRES_HOST: db\n  worker:\n    extends: {service: base}\n  base:\n    environment: [BROKER=redis://cache]\n";
    let mut read_file = |_: &str, path: &str| match path {
        "web.env" => Ok(("web.env".to_owned(), "# x\nMAIL_HOST=mail\nAPI=http://base/\n".to_owned())),
        _ => Err("not there".to_owned()),
    };
    let mut beside = Beside { variables: &BTreeMap::new(), read: &mut read_file };
    let files = [("c.yaml".to_owned(), base.to_owned()), ("o.yaml".to_owned(), over.to_owned())];
    let (compose, errors) = read("Folder", &files, &mut beside);
    assert_eq!(errors, []);
    assert_eq!(
        edges(&compose),
        [
            "web -> base web.env:3 [env_file API: http at base:80]",
            "web -> db o.yaml:4 [environment POSTGRES_HOST: postgresql at db]",
            "web -> cache c.yaml:5 [command: something at cache:6379]",
            "worker -> cache o.yaml:8 [environment BROKER: redis at cache:6379]",
            "base -> cache o.yaml:8 [environment BROKER: redis at cache:6379]",
            "web -> db c.yaml:7 [waits for the job migrate, which needs it]",
        ]
    );
    assert_eq!(compose.postgres, [("db".into(), vec![5433])]);
    let told: Vec<_> =
        compose.candidates.iter().map(|one| (one.service.as_str(), one.health_port, one.has_health)).collect();
    assert_eq!(
        told,
        [
            ("web", Some(8000), false),
            ("db", None, true),
            ("cache", None, false),
            ("worker", None, false),
            ("base", None, false)
        ]
    );
    assert_eq!(compose.candidates[0].how, How::Docker { project: "shop".into(), service: "web".into() });
    assert_eq!(compose.candidates[2].held_back.as_deref(), Some("only in the profile fast"));
    assert_eq!(compose.notes.len(), 2, "{:?}", compose.notes);
}

#[test]
fn what_is_laid_over_takes_the_place_of_what_lay_below() {
    let base = "\
services:
  web:
    image: web
    environment: [DATABASE_URL=postgres://db/x, CACHE=redis://cache]
    command: serve --broker amqp://queue
    depends_on: [db, cache]
    volumes: ['run:/var/run/mysqld']
  old: {image: x, depends_on: [db]}
  api:
    environment: {URL: 'http://$OTHER/', SELF: 'http://api.local/', KAFKA_URL: 'kafka://queue:9092/t', PROXY:}
    extra_hosts: ['db.local:host-gateway']
    links: ['db:store']
    networks: {default: {aliases: ['${ALIAS:-api.local}']}}
  db: {image: zulip/zulip-postgresql:14}
  sql: {image: 'mariadb:10', volumes: [{type: volume, source: run, target: /run/mysqld/}]}
  cache: {image: redis}
  queue: {image: rabbitmq}
";
    let over = "\
services:
  web:
    environment: {CACHE: 'redis://elsewhere.example'}
    command: serve
    depends_on: !override [db]
  old:
    depends_on: !reset []
  api:
    environment: [MAIN=postgres://u:p@db.local:5433/x, STORE=postgres://store/x]
";
    let variables =
        BTreeMap::from([("OTHER".to_owned(), "web".to_owned()), ("PROXY".to_owned(), "http://old:80".to_owned())]);
    let mut nothing = |_: &str, path: &str| Err(path.to_owned());
    let mut beside = Beside { variables: &variables, read: &mut nothing };
    let files = [("c.yaml".to_owned(), base.to_owned()), ("o.yaml".to_owned(), over.to_owned())];
    let (compose, errors) = read("p", &files, &mut beside);
    assert_eq!((errors, compose.notes.clone()), (vec![], vec![]));
    assert_eq!(
        edges(&compose),
        [
            "web -> db o.yaml:5 [depends_on]",
            "web -> db c.yaml:4 [environment DATABASE_URL: postgresql at db:5432]",
            "web -> sql c.yaml:7 [shares the folder of the mysql socket]",
            "api -> db c.yaml:12 [links]",
            "api -> queue c.yaml:10 [environment KAFKA_URL: kafka at queue:9092]",
            "api -> old c.yaml:10 [environment PROXY: http at old:80]",
            "api -> db o.yaml:9 [environment STORE: postgresql at store:5432]",
            "api -> web c.yaml:10 [environment URL: http at web:80]",
        ]
    );
    let out: Vec<String> =
        compose.reached.iter().map(|one| format!("{} {} {}", one.service, one.endpoint, one.is_sure)).collect();
    assert_eq!(out, ["web redis at elsewhere.example:6379 true", "api postgresql at host.docker.internal:5433 true"]);
    assert_eq!(compose.postgres, [("db".into(), vec![])]);
}

#[test]
fn what_extends_round_in_a_circle_ends() {
    let text = "services:\n  a: {extends: b, depends_on: [c]}\n  b: {extends: {service: a}}\n  c: {extends: gone}\n";
    let compose = parse("f", text).unwrap();
    assert_eq!(compose.candidates.len(), 3);
    assert!(compose.notes.iter().any(|note| note.contains("too many others in a row")), "{:?}", compose.notes);
    assert!(
        compose.notes.iter().any(|note| note.contains("\"gone\", which is not defined there")),
        "{:?}",
        compose.notes
    );
}

#[test]
fn a_service_that_many_extend_multiplies_nothing() {
    let mut text = "services:\n  base:\n    environment:\n".to_owned();
    (0..2_000).for_each(|number| text.push_str(&format!("      - V{number}=x\n")));
    (0..500).for_each(|number| text.push_str(&format!("  s{number}: {{extends: base}}\n")));
    let compose = parse("f", &text).unwrap();
    assert!(compose.candidates.len() > 10 && compose.notes.iter().any(|note| note.contains("the rest is passed over")));
}
