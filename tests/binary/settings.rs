//! `config check`: what it hides, and what it finds before a server would start with it.

use tempfile::tempdir;

use super::logged::{ADMIN, Logged};
use super::process::{Ended, command, data, run};
use crate::support::http;

const ALLOW: &str = "auth.mode = \"allow-all\"\n";

fn check(file: &str) -> Ended {
    let directory = tempdir().expect("a directory");
    let config = directory.path().join("eventlog.toml");
    std::fs::write(&config, file).expect("written");
    run(&["config", "check", "--config", data(&config)])
}

/// A secret under a mistyped name was shown, and so was the password in a URL.
#[test]
fn what_has_a_wrong_name_is_not_shown_and_neither_is_the_user_in_a_url() {
    let webhook = "[[webhook]]\nname = \"w\"\nfrom = \"now\"\n";
    let url = "https://CANARY:CANARY@host.example/x";
    let named = "[[admin.tokens]]\nname = \"a\"\nrights = \"read\"\n";
    for file in [
        format!("{webhook}url = \"https://h/\"\nsecrets = \"CANARY\""),
        format!("{webhook}url = \"{url}\"\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\""),
        "webhook = [\"CANARY\"]".to_owned(),
        format!("{named}tokens = \"CANARY\""),
        format!("{named}token = {{ text = \"CANARY\" }}"),
        "[admin]\ntokens = \"CANARY\"".to_owned(),
        "[auth.jwt]\nsecert = \"CANARY\"".to_owned(),
        "[Admin]\ntoken = \"CANARY\"".to_owned(),
        "admin = \"CANARY\"".to_owned(),
        "admin-token = \"CANARY\"".to_owned(),
        "listen = { token = \"CANARY\" }".to_owned(),
    ] {
        let checked = check(&format!("{ALLOW}{file}"));
        assert_eq!(checked.code, Some(1), "{file}: {}", checked.out);
        let said = checked.out + &checked.err;
        assert!(!said.contains("CANARY"), "{file}: {said}");
    }
    for (mode, rest) in [
        ("jwt", format!("[auth.jwt]\njwks_url = \"{url}\"")),
        (
            "http",
            format!(
                "[auth.http]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\nurl = \"{url}\""
            ),
        ),
    ] {
        let checked = check(&format!("[auth]\nmode = \"{mode}\"\n{rest}"));
        assert_eq!(checked.code, Some(1), "{mode}: {}", checked.out);
        assert!(checked.out.contains("https://***@host.example/x"), "{}", checked.out);
        let said = checked.out + &checked.err;
        assert!(said.contains("user") && !said.contains("CANARY"), "{said}");
    }
    // What is known is shown.
    let shown = check(&format!("{ALLOW}assign = []\nquota.per_key.connections = 7\n")).ok();
    assert!(shown.contains("quota.per_key.connections = 7"), "{shown}");
}

/// A server started with each of these, and logged nothing, or could not listen, or failed later.
#[test]
fn what_cannot_work_is_found_before_the_start() {
    let token = |name: &str, token: &str| {
        format!("[[admin.tokens]]\nname = \"{name}\"\nrights = \"read\"\ntoken = \"{token}\"\n")
    };
    for (file, says) in [
        ("[log]\nlevel = \"loud\"".to_owned(), "off, error, warn, info, debug and trace"),
        ("[log]\nlevel = \"info,eventlog_server=loud\"".to_owned(), "log.level"),
        (
            "listen = \"127.0.0.1:7499\"\n[admin]\ntoken = \"a\"\nlisten = \"127.0.0.1:7499\""
                .to_owned(),
            "that is `listen`",
        ),
        (token("a", "x") + &token("a", "y"), "has this name"),
        (format!("[admin]\ntoken = \"x\"\n{}", token("admin", "y")), "has this name"),
        (token("a", "x") + &token("b", "x"), "the same twice"),
        ("[limits]\nframe_bytes_max = \"99GiB\"".to_owned(), "1GiB is the most"),
    ] {
        let checked = check(&format!("{ALLOW}{file}"));
        assert_eq!(checked.code, Some(1), "{file}: {}", checked.out);
        assert!(checked.err.contains(says), "{file}: {}", checked.err);
    }
    let several = "workers = 0\n[auth]\nmode = \"jwt\"\n[auth.jwt]\nsecret = \"short\"";
    let said = check(several).err;
    assert!(said.contains("workers") && said.contains("at least 32 bytes"), "{said}");
    let tls = "[tls]\ncertificate_file = \"/none/a\"\nkey_file = \"/none/b\"\nclient_ca_file = \"/none/c\"";
    let said = check(&format!("{ALLOW}{tls}")).err;
    assert!(["/none/a", "/none/b", "/none/c"].iter().all(|file| said.contains(file)), "{said}");
    for (levels, code) in [("nonsense", 1), ("warn,eventlog_server=debug", 0), ("", 0)] {
        let mut check = command(&["config", "check", "--dev"]);
        let checked = Ended::of(check.env("EVENTLOG_LOG", levels).spawn().expect("it runs"));
        assert_eq!(checked.code, Some(code), "{levels}: {}", checked.err);
        assert_eq!(checked.err.contains("EVENTLOG_LOG"), code == 1, "{}", checked.err);
    }
}

/// The rest of such a file was applied.
#[tokio::test]
async fn a_reload_with_certificates_that_cannot_be_used_changes_nothing() {
    let directory = tempdir().expect("a directory");
    let bad = directory.path().join("bad.pem");
    std::fs::write(&bad, "nothing of the kind").expect("written");
    let file = format!("admin.token = {ADMIN:?}\n{ALLOW}");
    let server = Logged::start(&file);
    let to = server.serve().address().parse().expect("an address");
    let tls = format!("[tls]\ncertificate_file = {bad:?}\nkey_file = {bad:?}\n");
    let header = format!("authorization: Bearer {ADMIN}\r\n");
    server.configure(&format!("{file}[log]\nkeys = \"hashed\"\n{tls}"));
    let refused = http::request(to, "POST /admin/reload", &header, "").await;
    assert!(refused.contains("bad.pem") && refused.contains("nothing has changed"), "{refused}");
    server.configure(&format!("{file}[log]\nkeys = \"hashed\"\n"));
    let reloaded = http::request(to, "POST /admin/reload", &header, "").await;
    assert!(reloaded.contains(r#""applied":["log.keys"]"#), "{reloaded}");
}
