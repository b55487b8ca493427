PRAGMA auto_vacuum = incremental;
PRAGMA application_id = 1333293163;
PRAGMA user_version = 1;
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_wall_us INTEGER NOT NULL,
    boot_us    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE INDEX events_kind ON events (kind);
CREATE INDEX events_wall ON events (at_wall_us);
CREATE TABLE readings (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at_wall_us INTEGER NOT NULL,
    boot_us    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE INDEX readings_kind ON readings (kind, at_wall_us);
CREATE TABLE ticks (
    id           INTEGER PRIMARY KEY,
    age_us       INTEGER NOT NULL,
    wall_us      INTEGER NOT NULL,
    boot_us      INTEGER NOT NULL,
    boot_id      TEXT    NOT NULL,
    last_event   INTEGER NOT NULL,
    last_reading INTEGER NOT NULL
) STRICT;
CREATE INDEX ticks_age ON ticks (age_us);
INSERT INTO events VALUES (1, 1700000000000000, 0, 'guard_started', '{"event":"guard_started","version":" b     sxao ","pid":905972941,"boot_id":"aktv  bkm p s","cluster":"ix    ","mode":"act","limitations":[]}');
INSERT INTO events VALUES (2, 1700000001000000, 1000000, 'guard_stopped', '{"event":"guard_stopped","reason":" zj d"}');
INSERT INTO events VALUES (3, 1700000002000000, 2000000, 'guard_was_silent', '{"event":"guard_was_silent","silence":{"secs":6154642507190812234,"nanos":325350589},"cause":" wna zx lwx "}');
INSERT INTO events VALUES (4, 1700000003000000, 3000000, 'clock_stepped', '{"event":"clock_stepped","by_ms":-9044512083928795510}');
INSERT INTO events VALUES (5, 1700000004000000, 4000000, 'host_rebooted', '{"event":"host_rebooted","boot_id":" x zj  n   ouog   sj"}');
INSERT INTO events VALUES (6, 1700000005000000, 5000000, 'server_up', '{"event":"server_up","version":3426256414,"started":"2995-05-05T13:00:27.173777Z","in_recovery":false}');
INSERT INTO events VALUES (7, 1700000006000000, 6000000, 'server_down', '{"event":"server_down","reason":"unsupported_version","detail":"s  jyi  y  pi"}');
INSERT INTO events VALUES (8, 1700000007000000, 7000000, 'settings_seen', '{"event":"settings_seen","resting":{"limit":1680096150,"delay_ms":0.5542152488676066},"others":{}}');
INSERT INTO events VALUES (9, 1700000008000000, 8000000, 'vacuum_seen', '{"event":"vacuum_seen","process":{"pid":346236135,"start_ticks":2217997073930619951},"kind":"autovacuum","database":"idtlec av  f n ","table":null,"relation":1422925360}');
INSERT INTO events VALUES (10, 1700000009000000, 9000000, 'vacuum_gone', '{"event":"vacuum_gone","process":{"pid":1632069404,"start_ticks":10683048934747385409},"database":" u  l   ","table":null,"seen_for":{"secs":8174890357376622386,"nanos":398863269},"cpu_time":{"secs":8450190257471929454,"nanos":338382486}}');
INSERT INTO events VALUES (11, 1700000010000000, 10000000, 'alerted', '{"event":"alerted","alert":{"key":"cg p xr","rule":"sudgcwhjw p  x t wbh","severity":"info","state":"resolved","since":{"wall":"8642-01-01T20:27:54.836281Z","boot_us":7345694391544844542},"decided":{"wall":"-004501-06-14T13:58:29.13858Z","boot_us":2029658388517487057},"summary":"x  p u  t ph","details":[],"next_steps":[],"labels":{}}}');
INSERT INTO events VALUES (12, 1700000011000000, 11000000, 'alert_delivered', '{"event":"alert_delivered","key":"   kh ux yq j   s qx","state":"resolved","route":" qy ov  no   vo","attempt":260913825,"latency":{"secs":1235786809387362337,"nanos":113591359}}');
INSERT INTO events VALUES (13, 1700000012000000, 12000000, 'alert_failed', '{"event":"alert_failed","key":"  k ","route":" hf  s   k  x yxs","attempt":30031483,"error":" b  qc n pc hn","gave_up":false}');
INSERT INTO events VALUES (14, 1700000013000000, 13000000, 'throttle_proposed', '{"event":"throttle_proposed","workers":[{"pid":-1411552999,"start_ticks":6089408416928724059}],"tables":[],"setting":{"limit":1498922887,"delay_ms":0.2785583177009721},"reason":" ru q g tmw  ndoj c","command":"t l"}');
INSERT INTO events VALUES (15, 1700000014000000, 14000000, 'throttle_engaged', '{"event":"throttle_engaged","workers":[],"tables":[],"lever":"launcher_signal","setting":{"limit":700271608,"delay_ms":0.23031715226476182},"reason":" ji   sfxb  udux"}');
INSERT INTO events VALUES (16, 1700000015000000, 15000000, 'throttle_adjusted', '{"event":"throttle_adjusted","workers":[{"pid":1464884410,"start_ticks":12408983294628565530},{"pid":-492971267,"start_ticks":14147349244121774605},{"pid":-1413816008,"start_ticks":18436544683593781875}],"setting":{"limit":3564345064,"delay_ms":0.5402304688508176},"reason":":xS_*J"}');
INSERT INTO events VALUES (17, 1700000016000000, 16000000, 'throttle_verified', '{"event":"throttle_verified","cpu_before":0.07275804547510943,"cpu_after":0.8349980076411111,"busy_before":0.9807726062907257,"busy_after":0.6135199802579558,"obeyed":true}');
INSERT INTO events VALUES (18, 1700000017000000, 17000000, 'throttle_released', '{"event":"throttle_released","reason":"time_bound","held":{"secs":16774853816511049651,"nanos":295229903},"detail":"t   u jg y arjjm"}');
INSERT INTO events VALUES (19, 1700000018000000, 18000000, 'lever_unavailable', '{"event":"lever_unavailable","lever":null,"reason":"gksmdiawcx  do  k "}');
INSERT INTO events VALUES (20, 1700000019000000, 19000000, 'resting_setting_changed', '{"event":"resting_setting_changed","from":{"limit":2777198735,"delay_ms":2.6539714845197747e-307},"to":{"limit":887597885,"delay_ms":0.7840372321393609},"reason":"ba"}');
INSERT INTO events VALUES (21, 1700000020000000, 20000000, 'service_declared', '{"event":"service_declared","service":"qu  b t     u","depends_on":[],"impact":[]}');
INSERT INTO events VALUES (22, 1700000021000000, 21000000, 'service_changed', '{"event":"service_changed","service":"ly ","health":"unhealthy","detail":"    i ","impact":["yy  vu","htbf c  oadi  iqy"]}');
INSERT INTO events VALUES (23, 1700000022000000, 22000000, 'service_measured', '{"event":"service_measured","service":" wp","answers":{"window":{"secs":6128305172496016243,"nanos":849581783},"succeeded":11447001167726396763,"failed":6670232656421004994,"slowest":{"secs":13703613155092015736,"nanos":327947737}}}');
INSERT INTO events VALUES (24, 1700000023000000, 23000000, 'recording_failed', '{"event":"recording_failed","error":" c spz k oniug","lost":2958859052009973092}');
INSERT INTO events VALUES (25, 1700000024000000, 24000000, 'history_cut', '{"event":"history_cut","events":12061729665442431662,"max_size":3211871243810089087}');
INSERT INTO events VALUES (26, 1700000025000000, 25000000, 'noted', '{"event":"noted","author":" aq vbh w  e  ","text":")"}');
INSERT INTO readings VALUES (1, 1700000100000000, 100000000, 'host', '{"reading":"host","at":{"wall":"2023-11-14T22:15:00Z","boot_us":100000000},"window":{"secs":1,"nanos":137000},"cpus":8,"cpu":{"user":0.6180339887498949,"nice":0.0,"system":0.2360679774997898,"idle":0.8541019662496847,"iowait":0.4721359549995796,"irq":0.09016994374947451,"steal":0.0},"database_cpus":1,"database_cpu":{"user":0.6180339887498949,"nice":0.0,"system":0.2360679774997898,"idle":0.8541019662496847,"iowait":0.4721359549995796,"irq":0.09016994374947451,"steal":0.0},"run_queue":17,"load":[1.25,0.5,0.33],"cpu_pressure":{"some":0.7082039324993694,"full":0.3262379212492643},"memory_pressure":{"some":0.7082039324993694,"full":0.3262379212492643},"io_pressure":{"some":0.7082039324993694,"full":0.3262379212492643},"memory":{"total":25000000000,"available":20000000000,"swap_total":0,"swap_free":0},"file_systems":[{"path":"/var/lib/postgresql/15/main","total":270000000000,"available":85000000000,"inodes":16777216,"inodes_free":16000000},{"path":"/var/lib/oxpecker","total":270000000000,"available":85000000000,"inodes":16777216,"inodes_free":16000000}],"cgroup":{"cpu":2.0,"memory":1073741824,"memory_used":536870912},"processes":[{"id":{"pid":1234500,"start_ticks":18446744},"role":{"postgres":"client backend"},"cpu":0.0,"rss":123456789},{"id":{"pid":1234501,"start_ticks":18446745},"role":{"postgres":"client backend"},"cpu":0.6180339887498949,"rss":123456789}]}');
INSERT INTO readings VALUES (2, 1700000101000000, 101000000, 'activity', '{"reading":"activity","at":{"wall":"2023-11-14T22:15:01Z","boot_us":101000000},"took":{"secs":0,"nanos":1834000},"version":150018,"server_started":"2023-11-14T22:15:01Z","in_recovery":false,"connections":{"used":42,"max":100,"reserved":3,"by_state":{"active":7,"idle":7,"idle in transaction":7},"by_role":{"bot":7,"gate":7,"oxpecker":7,"site":7},"active_waiting":0},"longest_transaction":{"pid":1234567,"age":{"secs":61,"nanos":234000000},"database":"app","role":"site","application":"site","state":"idle in transaction"},"locks":{"waiting":3,"longest":{"secs":2,"nanos":345000000},"head":1234567},"vacuums":[{"process":{"pid":1234500,"start_ticks":18446744},"kind":"autovacuum","database":"app","table":"public.user_sessions","relation":16400,"started":"2023-11-14T22:15:01Z","phase":"vacuuming indexes","heap_blocks":123456,"heap_blocks_scanned":65432,"heap_blocks_vacuumed":0,"index_passes":1,"cpu":0.0,"in_delay":true,"blocks":0}],"autovacuum_slots":3,"own_cost":{"statements":123456,"elapsed":{"secs":987,"nanos":654321000},"backend_cpu":{"secs":98,"nanos":760000000}}}');
INSERT INTO ticks VALUES (1, 1233, 1795378454568211, 3030796164, '26da622a-a570-4f7b-be32-2fcfa1176f2a', 0, 0);
