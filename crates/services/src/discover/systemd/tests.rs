//! What units tell.

use proptest::prelude::*;

use super::*;

fn told(units: &[Unit]) -> Vec<String> {
    edges(units)
        .iter()
        .map(|one| format!("{} -> {} [{}]: {}", one.service, one.need, one.confidence, one.what))
        .collect()
}

#[test]
fn what_systemctl_shows() {
    let text = "Requires=system.slice postgresql@15-main.service sysinit.target\nAfter=postgresql@15-main.service redis.service systemd-journald.socket\nWants=redis.service\nId=site.service\n\nId=postgresql@15-main.service\nAfter=network.target systemd-tmpfiles-setup.service\nBindsTo=\n";
    let units = shown(text);
    assert_eq!(units.len(), 2);
    assert_eq!(
        told(&units),
        [
            "site -> postgresql@15-main [high]: Requires= and After= postgresql@15-main.service",
            "site -> redis [medium]: Wants= and After= redis.service",
        ]
    );
}

#[test]
fn unit_files_with_their_oddities() {
    let text = "# a\n[Unit]\nDescription=x\nRequires=a.service \\\n# between\n  b.service\nAfter = a.service\nAfter=c.service\nWants=d.service bot.service tmpl@.service\nRequires=\n[Service]\nAfter=evil.service\n[Install]\nWantedBy=multi-user.target\n";
    assert_eq!(
        told(&[unit_file("bot.service", "bot.service", text)]),
        [
            "bot -> a [high]: Requires= and After= a.service",
            "bot -> b [medium]: Requires= b.service, without an order",
            "bot -> c [low]: After= c.service, which is an order and no need",
            "bot -> d [low]: Wants= d.service, without an order",
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in "(\\[Unit\\]|Id=|After=|\\PC|\n|\\\\|\\.service){0,60}") {
        edges(&shown(&text));
        edges(&[unit_file("x.service", "x", &text)]);
    }
}

#[test]
fn a_host_of_units() {
    let unit =
        |id: &str, local: bool, text: &str| Unit { is_local: local, ..unit_file(id, &format!("etc/{id}"), text) };
    let mut site = unit(
        "site.service",
        true,
        "[Unit]\nAfter=postgresql.service ghost.service cache.service setup.service\n[Service]\nType=notify\nExecStart=/srv/site --broker redis://127.0.0.1/0\nEnvironmentFile=/etc/site.env\nEnvironmentFile=-/etc/none.env\nEnvironmentFile=/etc/missing.env\n",
    );
    site.read("etc/site.service.d/x.conf", "[Unit]\nRequires=postgresql.service\n");
    let units = [
        site,
        unit("postgresql.service", false, "[Service]\nType=oneshot\n"),
        unit("redis-server.service", false, "[Unit]\nAfter=network.target\n"),
        unit("setup.service", false, "[Service]\nType=oneshot\n"),
        unit("early.service", false, "[Unit]\nDefaultDependencies=no\n"),
        unit("idle.service", false, "[Unit]\nAfter=redis-server.service\n"),
        unit("work@.service", true, "[Unit]\nRequires=site.service\nAfter=site.service work@%i-helper.service\n")
            .instance("work@1.service"),
    ];
    let aliases = BTreeMap::from([("cache.service".to_owned(), "redis-server.service".to_owned())]);
    let mut files = |path: &str| match path {
        "/etc/site.env" => {
            Ok("# x\nDATABASE_URL=postgres:///site?host=/run/postgresql\nREMOTE=redis://cache.example:6379\n"
                .to_owned())
        }
        _ => Err("no such file".to_owned()),
    };
    let told = read(&units, &aliases, &mut Beside { read: &mut files, port: &mut |_| None });
    let edges: Vec<String> = told
        .found
        .iter()
        .map(|one| format!("{} -> {} [{}] {}: {}", one.service, one.need, one.confidence, one.place, one.what))
        .collect();
    assert_eq!(
        edges,
        [
            "site -> postgresql [high] etc/site.service.d/x.conf:2: Requires= and After= postgresql.service",
            "site -> redis-server [medium] etc/site.service:2: After= redis-server.service, in a unit written for this host",
            "site -> postgresql [medium] /etc/site.env:2: environment DATABASE_URL: postgresql at localhost:5432",
            "site -> redis-server [medium] etc/site.service:5: command: redis at 127.0.0.1:6379",
            "idle -> redis-server [low] etc/idle.service:2: After= redis-server.service, which is an order and no need",
            "work@1 -> site [high] etc/work@.service:2: Requires= and After= site.service",
        ]
    );
    let names: Vec<&str> = told.candidates.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(names, ["site", "postgresql", "redis-server", "work@1"]);
    assert_eq!(told.notes.len(), 2, "{:?}", told.notes);
}

fn read_all(units: &[Unit]) -> Vec<String> {
    let mut nothing = |_: &str| Err("not there".to_owned());
    let told = read(units, &BTreeMap::new(), &mut Beside { read: &mut nothing, port: &mut |_| None });
    told.found.iter().map(|one| format!("{} -> {} [{}] {}", one.service, one.need, one.confidence, one.what)).collect()
}

#[test]
fn sockets_aliases_orders_of_the_other_side_and_ends_together() {
    let unit = |id: &str, text: &str| unit_file(id, id, text);
    let units = [
        // A socket stands for what it starts, under whatever name.
        unit("virtd.service", "[Unit]\nRequires=log.socket\nWants=lock.socket\nAfter=lock.socket\n"),
        unit("log.socket", "[Socket]\nService=logger.service\n"),
        unit("logger.service", "[Unit]\nBefore=virtd.service\nRequires=log.socket\n"),
        unit("lock.socket", ""),
        unit("lock.service", ""),
        // nfs: the server needs mountd, which ends with it.
        unit("server.service", "[Unit]\nRequires=mountd.service\nAfter=mountd.service cache.service\n"),
        unit("mountd.service", "[Unit]\nBindsTo=server.service\n"),
        unit("redis.service", "[Install]\nAlias=cache.service\n"),
        // The one cluster that there is, is what its meta unit means.
        unit("app.service", "[Unit]\nRequires=postgresql.service\nAfter=postgresql.service\n"),
        unit("postgresql.service", "[Service]\nType=oneshot\n"),
        unit("postgresql@15-main.service", "[Unit]\nPartOf=postgresql.service\nBefore=postgresql.service\n"),
    ];
    assert_eq!(
        read_all(&units),
        [
            "virtd -> lock [medium] Wants= and After= lock.socket",
            "virtd -> logger [high] Requires= and After= log.socket",
            "server -> mountd [high] Requires= and After= mountd.service",
            "server -> redis [low] After= cache.service, which is an order and no need",
            "mountd -> server [low] BindsTo= server.service, which starts after it",
            "app -> postgresql@15-main [high] Requires= and After= postgresql.service",
        ]
    );
}

#[test]
fn what_is_taken_back_and_what_can_not_be() {
    let mut one = unit_file(
        "x.service",
        "x.service",
        "[Unit]\nAfter=a.service\n[Service]\nEnvironment=A=redis://localhost B=2\nEnvironmentFile=/etc/x\nExecStart=/bin/x --db postgres://localhost/x\n",
    );
    one.read("drop.conf", "[Unit]\nAfter=\n[Service]\nEnvironment=\nEnvironmentFile=\nExecStart=\nExecStart=/bin/y\n");
    assert_eq!((one.mentions.len(), one.environment_files.len()), (1, 0));
    let values: Vec<&str> = one.values.iter().map(|(_, value, _)| value.as_str()).collect();
    assert_eq!(values, ["/bin/y"]);
    let instance =
        unit_file("w@.service", "w@.service", "[Unit]\nAfter=%p-%i@%%x.service %N.service\n").instance("w@1-a.service");
    let others: Vec<&str> = instance.mentions.iter().map(|mention| mention.other.as_str()).collect();
    assert_eq!(others, ["w-1-a@%x.service", "w@1-a.service"]);
}
