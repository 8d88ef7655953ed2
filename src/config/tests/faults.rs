//! Everything that is wrong is reported at once, and secrets are never shown.

use std::os::unix::fs::PermissionsExt;

use super::*;

const WEBHOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[expect(clippy::disallowed_methods, reason = "the files that are read")]
fn examine(
    files: &[(&str, &str, u32)],
    variables: &[(&str, &str)],
) -> (tempfile::TempDir, Effective, Result<Config, String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let folder = directory.path().to_str().expect("UTF-8");
    for (name, content, mode) in files {
        let path = directory.path().join(name);
        std::fs::write(&path, content.replace("DIR", folder)).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).expect("set");
    }
    let named: Vec<_> =
        variables.iter().map(|(name, value)| (*name, value.replace("DIR", folder))).collect();
    let named: Vec<_> = named.iter().map(|(name, value)| (*name, &**value)).collect();
    let path = directory.path().join("eventlog.toml");
    let (effective, config) =
        Config::examine(Some(&path), environment(&named), Settings::default(), false);
    (directory, effective, config.map_err(|faults| faults.to_string()))
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let file = "workers = 0\nlisten = \"nowhere\"\nlissten = 1\n[auth]\nmode = \"jwt\"\n\
                [limits]\nstall_timeout = 30\nconnections_max = 0\n[[assign]]\npublic_key = \"a\"\n\
                [[webhook]]\nname = \"w\"\nurl = \"http://h/\"\nfrom = \"now\"\n";
    let variables = [("EVENTLOG_CACHE_BYTES", "lots"), ("EVENTLOG_NONSENSE", "1")];
    let (_, _, config) = examine(&[("eventlog.toml", file, 0o600)], &variables);
    let said = config.expect_err("refused");
    for (at, what) in [
        ("line 2", "listen"),
        ("line 3", "lissten"),
        ("line 7", "limits.stall_timeout"),
        ("line 9", "assign"),
        ("EVENTLOG_CACHE_BYTES", "lots"),
        ("EVENTLOG_NONSENSE", "not a setting"),
        ("`workers`", "at least one"),
        ("connections_max", "nothing allowed"),
        ("[[webhook]] secret", "\"w\""),
    ] {
        let found = said.split("\n\n* ").any(|fault| fault.contains(at) && fault.contains(what));
        assert!(found, "{at}, {what}: {said}");
    }
    assert!(said.starts_with("9 things are wrong"), "{said}");
}

#[test]
fn a_mode_that_cannot_be_read_is_not_missing_as_well() {
    let (_, _, config) = examine(&[("eventlog.toml", "auth.mode = \"alow-all\"", 0o600)], &[]);
    let said = config.expect_err("refused");
    assert!(said.contains("allow-all") && !said.contains("nobody has said"), "{said}");
}

#[test]
fn a_secret_may_be_in_a_file_which_outweighs_as_the_secret_would() {
    let file = "[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret_file = \"DIR/jwt\"\n[admin]\ntoken = \"from-the-file\"\n\
                [[webhook]]\nname = \"w\"\nurl = \"http://h/\"\nfrom = \"now\"\nsecret_file = \"DIR/webhook\"";
    let files = [
        ("eventlog.toml", file, 0o600),
        ("jwt", "one-secret-of-at-least-32-bytes-ok\ntwo-secret-of-at-least-32-bytes-ok\n", 0o600),
        ("webhook", &*format!("{WEBHOOK}\n"), 0o600),
        ("token", "from-the-environment\n", 0o640),
    ];
    let variables = [("EVENTLOG_ADMIN_TOKEN_FILE", "DIR/token")];
    let (_directory, effective, config) = examine(&files, &variables);
    let config = config.expect("it works");
    let token = AdminToken::new("admin", [AdminRight::Admin], "from-the-environment");
    assert_eq!(config.admin.tokens, [token.expect("a token")]);
    let AuthChoice::Jwt(jwt) = &config.auth else { panic!("not jwt") };
    let secrets = jwt.secret.iter().flat_map(|secrets| &secrets.0);
    let secrets: Vec<_> = secrets.map(|named| named.secret.expose()).collect();
    assert_eq!(
        secrets,
        ["one-secret-of-at-least-32-bytes-ok", "two-secret-of-at-least-32-bytes-ok"]
    );
    assert_eq!(config.webhooks[0].secrets.len(), 1);
    assert_eq!(config.warnings, <[String; 0]>::default());
    let shown = format!("{config:?} {effective:?}");
    for secret in ["from-the", "secret-of", &WEBHOOK[10..]] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let keys: Vec<_> = effective.lines().into_iter().map(|(key, ..)| key.to_owned()).collect();
    assert!(
        keys.contains(&"admin.token_file".to_owned()) && !keys.contains(&"admin.token".to_owned())
    );
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_is_named_without_what_is_in_it() {
    let allow = "auth.mode = \"allow-all\"\n";
    for (config, content, says) in [
        ("admin.token_file = \"DIR/nowhere\"", "", "cannot be read"),
        ("admin.token_file = \"DIR/secret\"", "\n", "empty"),
        ("admin.token_file = \"DIR/secret\"", "CANARY of three words", "no spaces"),
        ("admin.token_file = \"DIR/secret\"", "CANARY\nCANARY", "the same twice"),
        ("admin = { token = \"a\", token_file = \"DIR/secret\" }", "CANARY", "as well"),
        ("admin.token = 424242e3", "", "a text"),
        ("admin.token = \"CANARY", "", "line 2"),
        ("auth.http.secret = 424242", "", "a text"),
        ("auth.jwt.secret = 424242", "", "a list"),
        ("auth.jwt.secret = [424242]", "", "a secret"),
        ("auth.http.secret_file = \"DIR/secret\"", "CANARY", "whsec_"),
    ] {
        let file = format!("{allow}{config}");
        let files = [("eventlog.toml", &*file, 0o600), ("secret", content, 0o600)];
        let said = examine(&files, &[]).2.expect_err("refused");
        assert!(said.contains(says), "{config}: {said}");
        assert!(!said.contains("CANARY") && !said.contains("424242"), "{config}: {said}");
    }
    let large = "x".repeat(70_000);
    let files = [
        ("eventlog.toml", &*format!("{allow}admin.token_file = \"DIR/secret\""), 0o600),
        ("secret", &*large, 0o600),
    ];
    assert!(examine(&files, &[]).2.expect_err("refused").contains("larger than 64 KiB"));
}

#[test]
fn a_file_with_secrets_that_everyone_can_read_is_warned_of() {
    let inline = "auth.mode = \"allow-all\"\nadmin.token = \"t\"";
    let named = "auth.mode = \"allow-all\"\nadmin.token_file = \"DIR/token\"";
    for (file, mode, token_mode, warned) in [
        (inline, 0o640, 0o600, None),
        (inline, 0o644, 0o600, Some("eventlog.toml")),
        (named, 0o644, 0o640, None),
        (named, 0o644, 0o644, Some("token")),
    ] {
        let files = [("eventlog.toml", file, mode), ("token", "t", token_mode)];
        let warnings = examine(&files, &[]).2.expect("it works").warnings;
        assert_eq!(warnings.len(), usize::from(warned.is_some()), "{warnings:?}");
        for (warning, name) in warnings.iter().zip(warned) {
            assert!(warning.contains(&format!("/{name}, which")), "{warning}");
        }
    }
}

/// An empty variable of a container, for example. An empty list of issuers would accept every issuer.
#[test]
fn what_is_left_empty_lets_nobody_in_who_would_not_be_without_it() {
    let base = "[auth]\nmode = \"jwt\"\n[auth.jwt]\n";
    for (setting, variables, says) in [
        ("issuer = []", vec![], "[auth.jwt] issuer"),
        ("issuer = \"\"", vec![], "[auth.jwt] issuer"),
        ("audience = [\"\"]", vec![], "[auth.jwt] audience"),
        ("algorithms = []", vec![], "[auth.jwt] algorithms"),
        ("", vec![("EVENTLOG_AUTH_JWT_ISSUER", "")], "[auth.jwt] issuer"),
        ("", vec![("EVENTLOG_AUTH_JWT_AUDIENCE", "")], "[auth.jwt] audience"),
        ("", vec![("EVENTLOG_AUTH_JWT_ALGORITHMS", "")], "[auth.jwt] algorithms"),
        ("claims.sub = \"\"", vec![], "[auth.jwt.claims]"),
        ("", vec![("EVENTLOG_AUTH_JWT_CLAIMS_JTI", "")], "[auth.jwt.claims]"),
    ] {
        let file = format!("{base}{setting}");
        let said = examine(&[("eventlog.toml", &*file, 0o600)], &variables).2;
        let said = said.expect_err(setting);
        assert!(said.contains(says), "{setting} {variables:?}: {said}");
    }
    let file = format!("{base}issuer = \"a\"\nclaims.sub = \"user\"");
    examine(&[("eventlog.toml", &*file, 0o600)], &[]).2.expect("it works");
}
