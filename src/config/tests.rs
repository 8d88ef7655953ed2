//! The whole configuration: precedence, refusals, and the example that users copy.

use std::ffi::OsString;

use eventlog_server::model::{PublicKey, StoreId};
use eventlog_server::server::{AdminRight, AdminToken};
use eventlog_server::webhooks::Begin;

use super::*;

mod faults;
mod pages;
mod schema;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::new(pairs.iter().map(|(name, value)| (name.into(), OsString::from(value))))
}

fn load(file: &str, variables: &[(&str, &str)], flags: Settings) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("eventlog.toml");
    #[expect(clippy::disallowed_methods, reason = "the file that is read")]
    std::fs::write(&path, file).expect("written");
    Config::load(Some(&path), environment(variables), flags, false).map_err(first)
}

/// The first error.
fn first(mut faults: ConfigFaults) -> ConfigError {
    faults.0.swap_remove(0)
}

fn resolve(settings: Settings, dev: bool) -> Result<Config, ConfigError> {
    Config::resolve(settings, dev, Vec::new()).map_err(first)
}

fn parse(text: &str) -> Settings {
    let (settings, faults) = parse_file(text);
    assert_eq!(faults.found, []);
    settings
}

/// The configuration of this file only, with an authorization mode added.
fn allowed(file: &str) -> Result<Config, ConfigError> {
    load(&format!("auth.mode = \"allow-all\"\n{file}"), &[], Settings::default())
}

fn refusal(result: Result<Config, ConfigError>) -> String {
    result.expect_err("refused").to_string()
}

/// The example with everything enabled that is commented out.
fn whole_example() -> String {
    let shown = |line: &str| {
        let rest = line.strip_prefix('#')?;
        super::schema::is_shown(rest).then(|| rest.to_owned())
    };
    let lines = EXAMPLE.lines().map(|line| shown(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_shows_every_key_that_there_is() {
    let settings = parse(&whole_example());
    let mut missing = Vec::new();
    settings.missing("", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
    // Each mode with its own part of `[auth]`.
    let mut grants = settings.clone();
    grants.auth.jwt = JwtSettings::default();
    grants.auth.http = HttpSettings::default();
    resolve(grants, false).expect("it works");
    let mut jwt = settings.clone();
    jwt.auth.mode = Some(AuthMode::Jwt);
    jwt.auth.grant.clear();
    jwt.auth.http = HttpSettings::default();
    resolve(jwt, false).expect("it works");
    let mut http = settings;
    http.auth.mode = Some(AuthMode::Http);
    http.auth.grant.clear();
    http.auth.jwt = JwtSettings::default();
    resolve(http, false).expect("it works");
}

#[test]
fn the_example_shows_the_defaults() {
    let shown = format!("{:?}", resolve(parse(EXAMPLE), true));
    let defaults = format!("{:?}", resolve(Settings::default(), true));
    assert_eq!(shown, defaults);
    // A setting with a default is shown with it, and not commented out.
    let (mut missing, settings) = (Vec::new(), parse(EXAMPLE));
    settings.missing("", &mut missing);
    let without_default = [
        ".spill_bytes_max",
        ".workers",
        ".store_threads",
        ".tls.certificate_file",
        ".tls.key_file",
        ".tls.client_ca_file",
        ".log.level",
        ".storage.url",
        ".storage.url_file",
        ".auth.mode",
        ".auth.bind",
        ".auth.jwt.algorithms",
        ".auth.jwt.secret",
        ".auth.jwt.secret_file",
        ".auth.jwt.public_key_file",
        ".auth.jwt.jwks_file",
        ".auth.jwt.jwks_url",
        ".auth.jwt.issuer",
        ".auth.jwt.audience",
        ".auth.http.url",
        ".auth.http.secret",
        ".auth.http.secret_file",
        ".auth.grant",
        ".admin.token",
        ".admin.token_file",
        ".admin.listen",
        ".admin.tokens",
        ".archive.dir",
        ".archive.bytes_max",
        ".archive.age_max",
        ".archive.to",
        ".backup.every",
        ".backup.to",
        ".backup.keep",
        ".assign",
        ".compaction",
        ".retention",
        ".webhook",
        ".quota.per_key.writes_per_second",
        ".quota.per_key.bytes_per_second",
        ".quota.per_key.subscriptions",
        ".quota.per_key.connections",
        ".quota.per_key.bytes_stored",
        ".quota.per_store.writes_per_second",
        ".quota.per_store.bytes_per_second",
        ".quota.per_store.subscriptions",
        ".quota.per_store.connections",
        ".quota.per_store.bytes_stored",
        ".quota.key",
        ".quota.store",
        ".limits.entry_bytes_max",
    ];
    assert_eq!(missing, without_default);
}

#[test]
fn flags_outweigh_the_environment_which_outweighs_the_file() {
    let file = "listen = \"127.0.0.1:1\"\ndata_dir = \"file\"\ncache_bytes = \"1MiB\"\n[auth]\nmode = \"allow-all\"";
    let variables = [("EVENTLOG_LISTEN", "127.0.0.1:2"), ("EVENTLOG_DATA_DIR", "environment")];
    let flags = Settings {
        listen: Some("127.0.0.1:3".parse().expect("an address")),
        ..Settings::default()
    };
    let config = load(file, &variables, flags).expect("it works");
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.data_dir, PathBuf::from("environment"));
    assert_eq!(config.database.cache_bytes, 1 << 20);
    assert_eq!(config.shutdown_timeout, SHUTDOWN_TIMEOUT);
}

#[test]
fn every_scalar_can_come_from_the_environment() {
    let variables = [
        ("EVENTLOG_AUTH_MODE", "allow-all"),
        ("EVENTLOG_ADMIN_TOKEN", "12345"),
        ("EVENTLOG_WORKERS", "3"),
        ("EVENTLOG_ORIGINS", "https://a.example,https://b.example"),
        ("EVENTLOG_DURABILITY", "sync"),
        ("EVENTLOG_CACHE_BYTES", "5MiB"),
        ("EVENTLOG_LIMITS_STALL_TIMEOUT", "2m"),
        ("EVENTLOG_LIMITS_CONNECTIONS_MAX", "7"),
    ];
    let config = load("", &variables, Settings::default()).expect("it works");
    let token = AdminToken::new("admin", [AdminRight::Admin], "12345").expect("a token");
    assert_eq!(config.admin.tokens, [token]);
    assert_eq!(config.workers, 3);
    assert!(matches!(&config.origins, OriginPolicy::Listed(origins) if origins.len() == 2));
    assert_eq!(config.database.cache_bytes, 5 << 20);
    assert_eq!(config.limits.stall_timeout, Duration::from_secs(120));
    assert_eq!(config.limits.connections_max, 7);
}

#[test]
fn a_misspelt_key_is_named_with_its_place() {
    let message = refusal(allowed("\n[limits]\nframe_byte_max = 1"));
    assert!(message.contains("frame_byte_max"), "{message}");
    assert!(message.contains("line 4"), "{message}");
    assert!(message.contains("frame_bytes_max"), "it should name what there is: {message}");
    for wrong in [
        "lissten = \"\"",
        "[auht]",
        "[[assign]]\npublic_key = \"a\"\nstore = \"b\"",
        "[admin]\ntokn=\"\"",
    ] {
        refusal(allowed(wrong));
    }
    let message = refusal(load("", &[("EVENTLOG_LISSTEN", "x")], Settings::default()));
    assert!(message.contains("EVENTLOG_LISSTEN"), "{message}");
}

#[test]
fn a_wrong_value_is_named_with_how_to_write_it() {
    let message = refusal(allowed("[limits]\nstall_timeout = 30"));
    assert!(message.contains("line 3") && message.contains("30s"), "{message}");
    let message =
        refusal(load("", &[("EVENTLOG_LIMITS_FRAME_BYTES_MAX", "1MB")], Settings::default()));
    assert!(
        message.contains("EVENTLOG_LIMITS_FRAME_BYTES_MAX") && message.contains("16MiB"),
        "{message}"
    );
    let message = refusal(allowed("[storage]\nkind = \"mysql\""));
    assert!(message.contains("postgres") && message.contains("sled"), "{message}");
    let message = refusal(load("", &[("EVENTLOG_STORAGE_KIND", "x")], Settings::default()));
    assert!(message.contains("EVENTLOG_STORAGE_KIND") && message.contains("sled"), "{message}");
    let message = refusal(load("auth.mode = \"allow_all\"", &[], Settings::default()));
    assert!(message.contains("allow-all"), "{message}");
}

#[test]
fn without_an_auth_mode_it_says_what_to_write() {
    let message = refusal(load("", &[], Settings::default()));
    // The suggested setting works.
    let shown: Vec<String> = message
        .split("\n\n")
        .filter(|block| block.starts_with("    [auth]"))
        .map(|block| block.lines().map(|line| &line[4..]).collect::<Vec<_>>().join("\n"))
        .collect();
    assert_eq!(shown.len(), 4, "{message}");
    for file in shown {
        load(&file, &[], Settings::default()).expect("it works");
    }
    load("", &[("EVENTLOG_AUTH_MODE", "allow-all")], Settings::default()).expect("it works");
    assert!(message.contains("--dev"));
}

#[test]
fn dev_needs_no_auth_mode_and_takes_no_grants() {
    let dev = |text| resolve(parse(text), true);
    assert!(matches!(dev("").expect("it works").auth, AuthChoice::Dev));
    assert!(matches!(dev("auth.mode = \"allow-all\"").expect("it works").auth, AuthChoice::Dev));
    let grant = "[auth]\nmode = \"grants\"\n[[auth.grant]]\npublic_key = \"a\"\nread = true";
    assert!(matches!(dev(grant), Err(ConfigError::DevWithRules)));
}

#[test]
fn grants_and_their_mode_belong_together() {
    let grant = "[[auth.grant]]\npublic_key = \"a\"\nread = true\n";
    let grants = |mode: &str, grants: &str| {
        load(&format!("[auth]\nmode = \"{mode}\"\n{grants}"), &[], Settings::default())
    };
    assert!(matches!(grants("grants", grant).expect("it works").auth, AuthChoice::Grants(_)));
    assert!(matches!(grants("grants", ""), Err(ConfigError::Auth(_))));
    assert!(matches!(grants("allow-all", grant), Err(ConfigError::Auth(_))));
    assert!(matches!(grants("grants", &grant.repeat(2)), Err(ConfigError::DuplicateGrant(_))));
    let anyone = grants("grants", &grant.replace("\"a\"", "\"*\"")).expect("it works").auth;
    let AuthChoice::Grants(anyone) = anyone else { panic!("not grants") };
    let public_key = PublicKey::new("*").expect("a key");
    assert_eq!(anyone, [Grant { public_key, write: false, read: true, events: None }]);
    let some = grants("grants", &format!("{grant}events = [\"Todo*\", \"Note\"]"));
    let AuthChoice::Grants(some) = some.expect("it works").auth else { panic!("not grants") };
    assert_eq!(some[0].events, Some(vec!["Todo*".into(), "Note".into()]));
    // They can be set later.
    assert!(grants("grants", "[admin]\ntoken = \"t0ken\"").is_ok());
}

#[test]
fn tokens_and_their_mode_belong_together() {
    let jwt = |mode: &str, jwt: &str, rest: &str| {
        let file = format!("{rest}\n[auth]\nmode = \"{mode}\"\n[auth.jwt]\n{jwt}");
        load(&file, &[], Settings::default())
    };
    let config = jwt("jwt", "issuer = \"a\"\ntokens = [\"query\", \"cookie:session\"]", "");
    assert!(matches!(config.expect("it works").auth, AuthChoice::Jwt(_)));
    assert!(matches!(jwt("allow-all", "issuer = \"a\"", ""), Err(ConfigError::Auth(_))));
    assert!(jwt("allow-all", "leeway = \"5s\"", "").is_ok(), "as the example has it");
    assert!(refusal(jwt("jwt", "tokens = [\"header\"]", "")).contains("cookie:NAME"));
    assert!(refusal(jwt("jwt", "algorithms = [\"none\"]", "")).contains("EdDSA"));
    let cookies = |origins| jwt("jwt", "tokens = [\"cookie:session\"]", origins);
    assert!(cookies("origins = [\"https://app.example\"]").is_ok());
    assert!(refusal(cookies("origins = [\"*\"]")).contains("cookie"));
    assert!(jwt("jwt", "", "origins = [\"*\"]").is_ok(), "no page has the token of another");
    let variables = [
        ("EVENTLOG_AUTH_MODE", "jwt"),
        ("EVENTLOG_AUTH_JWT_SECRET", "of, two parts and more than 32 bytes"),
        ("EVENTLOG_AUTH_JWT_TOKENS", "query,cookie:a"),
        ("EVENTLOG_AUTH_JWT_CLAIMS_STORE_ID", "team"),
    ];
    let config = load("", &variables, Settings::default()).expect("it works");
    let AuthChoice::Jwt(jwt) = config.auth else { panic!("not jwt") };
    assert_eq!(jwt.secret.map(|secrets| secrets.0.len()), Some(1));
    assert_eq!(jwt.tokens.map(|tokens| tokens.0.len()), Some(2));
    assert_eq!(jwt.claims.store_id.as_deref(), Some("team"));
}

#[test]
fn who_is_asked_over_http_and_its_mode_belong_together() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let http = |mode: &str, http: &str, rest: &str| {
        let url = format!("url = \"https://app.example/may\"\nsecret = {secret:?}");
        let file = format!("{rest}\n[auth]\nmode = {mode:?}\n[auth.http]\n{url}\n{http}");
        load(&file, &[], Settings::default())
    };
    let config = http("http", "headers = [\"Cookie\"]\ntimeout = \"1s\"", "").expect("it works");
    assert_eq!(config.bind_policy, BindPolicy::FirstUse);
    let AuthChoice::Http(options) = config.auth else { panic!("not http") };
    assert_eq!((options.timeout.as_secs(), options.secrets.len()), (1, 1));
    assert!(matches!(http("allow-all", "", ""), Err(ConfigError::Auth(_))));
    let cookies = |origins| http("http", "headers = [\"x-team\", \"Cookie\"]", origins);
    assert!(cookies("origins = [\"https://app.example\"]").is_ok());
    assert!(refusal(cookies("origins = [\"*\"]")).contains("cookies"));
    assert!(http("http", "headers = [\"x-team\"]", "origins = [\"*\"]").is_ok());
    assert!(!refusal(http("http", "secret = \"CANARY\"", "")).is_empty());
    let variables = [
        ("EVENTLOG_AUTH_MODE", "http"),
        ("EVENTLOG_AUTH_HTTP_URL", "http://127.0.0.1:1/may"),
        ("EVENTLOG_AUTH_HTTP_SECRET", secret),
        ("EVENTLOG_AUTH_HTTP_HEADERS", "cookie, x-team"),
    ];
    let config = load("", &variables, Settings::default()).expect("it works");
    let AuthChoice::Http(options) = config.auth else { panic!("not http") };
    assert_eq!(options.headers, ["cookie", "x-team"]);
    let mut wrong = variables;
    wrong[2].1 = "CANARY";
    let said = refusal(load("", &wrong, Settings::default()));
    assert!(said.contains("whsec_") && !said.contains("CANARY"), "{said}");
}

#[test]
fn who_may_bind_a_signing_key_follows_from_the_mode_unless_it_is_said() {
    let hex = "0f".repeat(32);
    let grant =
        format!("[[auth.grant]]\npublic_key = \"a\"\nread = true\nsigning_key = \"{hex}\"\n");
    let assign =
        format!("[[assign]]\npublic_key = \"b\"\nstore_id = \"s\"\nsigning_key = \"{hex}\"\n");
    let policy = |auth: &str, rest: &str| {
        load(&format!("[auth]\n{auth}\n{rest}"), &[], Settings::default()).expect("it works")
    };
    assert_eq!(policy("mode = \"allow-all\"", "").bind_policy, BindPolicy::FirstUse);
    assert_eq!(policy("mode = \"jwt\"", "").bind_policy, BindPolicy::FirstUse);
    let pinned = policy("mode = \"grants\"", &format!("{grant}{assign}"));
    assert_eq!((pinned.bind_policy, pinned.keeps_proof), (BindPolicy::Pinned, true));
    let names: Vec<_> = pinned.pinned.iter().map(|(key, pin)| (key.as_str(), pin[31])).collect();
    assert_eq!(names, [("a", 15), ("b", 15)]);
    let said = policy("mode = \"grants\"\nbind = \"first-use\"\nkeep_proof = false", &grant);
    assert_eq!((said.bind_policy, said.keeps_proof), (BindPolicy::FirstUse, false));
    let token = |mode: &str| {
        load(&format!("[auth]\nmode = {mode:?}\nbind = \"token\""), &[], Settings::default())
    };
    assert_eq!(token("jwt").expect("it works").bind_policy, BindPolicy::Named);
    assert!(matches!(token("allow-all"), Err(ConfigError::Auth(_))));
    let short = grant.replace(&hex, "0f");
    assert!(
        refusal(load(&format!("auth.mode = \"grants\"\n{short}"), &[], Settings::default()))
            .contains("64")
    );
    let rpc = allowed("paths = [\"/rpc\"]").expect("it works");
    assert_eq!(rpc.paths, [ServedPath::Rpc]);
    assert!(refusal(allowed("paths = []")).contains("paths"));
    assert!(refusal(allowed("paths = [\"/x\"]")).contains("/eventlog"));
}

#[test]
fn assignments_and_compaction_are_read() {
    let config = allowed(
        "[[assign]]\npublic_key = \"alice\"\nstore_id = \"team\"\n\
         [[compaction]]\nevents = [\"Todo*\", \"Note\"]\nolder_than = \"30d\"\nstrategy = \"drop\"",
    )
    .expect("it works");
    let alice = Assignment {
        public_key: PublicKey::new("alice").expect("a key"),
        store_id: StoreId::new("team").expect("a store"),
        signing_key: None,
    };
    assert_eq!(config.assign, [alice]);
    let rule = &config.compaction[0];
    assert_eq!(rule.events, ["Todo*", "Note"]);
    assert_eq!(rule.older_than.0, Duration::from_hours(720));
    assert_eq!(rule.strategy, CompactionStrategy::Drop);
    assert!(allowed("[[assign]]\npublic_key = \"\"\nstore_id = \"team\"").is_err());
}

#[test]
fn webhooks_are_read_and_say_where_they_begin() {
    let webhook = |more: &str| {
        allowed(&format!("[[webhook]]\nname = \"mailer\"\nurl = \"http://127.0.0.1/\"\n{more}"))
    };
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let config = webhook(&format!("secret = \"{secret}\"\nfrom = \"start\"\ntimeout = \"5s\""));
    let config = config.expect("it works");
    let [options] = &config.webhooks[..] else { panic!("one webhook") };
    assert_eq!((options.from, options.timeout), (Begin::Start, Duration::from_secs(5)));
    assert_eq!((&options.events[..], options.entries_max), (&["*".to_owned()][..], 100));
    assert!(!format!("{config:?}").contains(&secret[10..]), "a secret is not shown");
    let both = webhook(&format!("secret = [\"{secret}\", \"{secret}\"]\nfrom = \"now\""));
    assert_eq!(both.expect("it works").webhooks[0].secrets.len(), 2);
    for (more, says) in [
        (&*format!("secret = \"{secret}\""), "missing field `from`"),
        ("from = \"now\"", "[[webhook]] secret"),
        ("secret = \"whsec_short\"\nfrom = \"now\"", "24 to 64 random bytes"),
        (&*format!("secret = \"{secret}\"\nfrom = \"yesterday\""), "yesterday"),
    ] {
        let message = refusal(webhook(more));
        assert!(message.contains(says), "{more}: {message}");
    }
}

#[test]
fn the_only_durability_is_the_only_one_that_is_named() {
    let message = refusal(allowed("durability = \"soon\""));
    assert!(message.contains("durability") && message.contains("`sync`"), "{message}");
    assert!(!message.contains("interval"), "{message}");
}

#[test]
fn what_cannot_work_is_refused_with_its_key() {
    for (file, key) in [
        ("tls.client_certificates = \"optional\"", "client_ca_file"),
        ("workers = 0", "workers"),
        ("store_threads = 0", "store_threads"),
        ("cache_bytes = 0", "cache_bytes"),
        ("limits.connections_max = 0", "connections_max"),
        ("limits.stall_timeout = \"0ms\"", "stall_timeout"),
        ("limits.frame_bytes_max = 512000", "frame_bytes_max"),
        ("limits.message_bytes_max = \"2GiB\"", "message_bytes_max"),
        ("limits.message_bytes_max = \"64MiB\"", "chunk_set_bytes_max"),
        ("limits.entry_bytes_max = \"17MiB\"", "entry_bytes_max"),
        ("[[retention]]\nstores = \"*\"", "age_max"),
        ("[[retention]]\nstores = \"\"\nage_max = \"1d\"", "stores"),
        ("[[retention]]\nstores = \"*\"\nentries_max = 0", "everything"),
        ("[[retention]]\nstores = \"*\"\nage = \"1d\"", "age"),
        ("[[compaction]]\nevents = []\nolder_than = \"1d\"\nstrategy = \"drop\"", "events"),
        ("[[compaction]]\nevents = [\"\"]\nolder_than = \"1d\"\nstrategy = \"drop\"", "events"),
    ] {
        let message = refusal(allowed(file));
        assert!(message.contains(key), "{file}: {message}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let missing = Path::new("does/not/exist.toml");
    let message = refusal(
        Config::load(Some(missing), environment(&[]), Settings::default(), true).map_err(first),
    );
    assert!(message.contains("does/not/exist.toml"), "{message}");
}

#[cfg(feature = "postgres")]
#[test]
fn a_database_is_named_and_used_or_neither() {
    let message = refusal(allowed("[storage]\nkind = \"postgres\""));
    assert!(message.contains("url"), "{message}");
    let message = refusal(allowed("[storage]\nurl = \"postgres://a:hunter2@localhost/b\""));
    assert!(message.contains("kind") && !message.contains("hunter2"), "{message}");
    let file = "[storage]\nkind = \"postgres\"\nurl = \"postgres://a:hunter2@localhost/b\"";
    let config = allowed(file).expect("it works");
    assert!(!format!("{config:?}").contains("hunter2"));
    let StorageChoice::Postgres(choice) = config.storage else { panic!("another storage") };
    assert_eq!(choice.url.expose(), "postgres://a:hunter2@localhost/b");
    let message = refusal(allowed(&format!("{file}\n[backup]\nevery = \"1h\"\nto = \"x\"")));
    assert!(message.contains("pg_dump"), "{message}");
    let message = refusal(allowed(&format!("{file}\n[archive]\nto = \"s3://bucket/a\"")));
    assert!(message.contains("archive_command"), "{message}");
    let variables = [
        ("EVENTLOG_STORAGE_KIND", "postgres"),
        ("EVENTLOG_STORAGE_URL", "postgres://x@localhost/y"),
    ];
    let config = load("auth.mode = \"allow-all\"", &variables, Settings::default());
    assert!(matches!(config.expect("it works").storage, StorageChoice::Postgres(_)));
}
