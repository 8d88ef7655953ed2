//! A URL with several hosts: each is tried by itself, in their order, so that it is known why none of them can be used.
//!
//! Keeps: hosts are tried in the driver's order, and with all settings of the URL. Leaves out: the addresses that one name
//! has, which the driver tries one after the other; and `load_balance_hosts=random`, where the driver chooses. It would
//! try the others as well, but returns only the last reason.

use tokio_postgres::config::{Config, Host, LoadBalanceHosts};
use tokio_postgres::{Client, Connection, Socket};

use super::failed::Failed;
use super::tls::{Stream, Tls};

/// The port of a URL without one.
const PORT: u16 = 5432;

/// A connection to the first host of `config` that can be used.
pub(super) async fn connect(
    config: &Config,
    tls: &Tls,
) -> Result<(Client, Connection<Socket, Stream<Socket>>), Failed> {
    let mut reasons = Vec::new();
    for one in each(config) {
        match one.connect(tls.clone()).await {
            Ok(connected) => return Ok(connected),
            Err(error) => reasons.push(Failed::not_connected(&address(&one), &error).to_string()),
        }
    }
    Err(Failed::before_anything(reasons.join("; ")))
}

/// The settings for each host. All together if the driver is to choose among them.
fn each(config: &Config) -> Vec<Config> {
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let chooses = config.get_load_balance_hosts() != LoadBalanceHosts::Disable;
    let count = hosts.max(addresses);
    let are_pairs = hosts == 0 || addresses == 0 || hosts == addresses;
    let have_ports = config.get_ports().len() <= 1 || config.get_ports().len() == count;
    if count < 2 || chooses || !are_pairs || !have_ports {
        return vec![config.clone()];
    }
    (0..count).map(|n| alone(config, n)).collect()
}

/// All settings of `config`, with its host `n` only.
fn alone(config: &Config, n: usize) -> Config {
    let mut one = Config::new();
    match config.get_hosts().get(n) {
        Some(Host::Tcp(name)) => {
            one.host(name);
        }
        #[cfg(unix)]
        Some(Host::Unix(path)) => {
            one.host_path(path);
        }
        None => {}
    }
    if let Some(address) = config.get_hostaddrs().get(n) {
        one.hostaddr(*address);
    }
    one.port(port(config, n))
        .ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle());
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = config.get_options() {
        one.options(options);
    }
    if let Some(name) = config.get_application_name() {
        one.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        one.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        one.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one
}

/// One port is for all hosts.
fn port(config: &Config, n: usize) -> u16 {
    let ports = config.get_ports();
    ports.get(n).or(ports.first()).copied().unwrap_or(PORT)
}

/// Host and port of each server of `config`: `db.example:5432, other.example:5432`.
fn address(config: &Config) -> String {
    let of_names = config.get_hosts().iter().enumerate().map(|(n, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(config, n)),
        #[cfg(unix)]
        Host::Unix(path) => format!("{}/.s.PGSQL.{}", path.display(), port(config, n)),
    });
    let of_names: Vec<_> = of_names.collect();
    if !of_names.is_empty() {
        return of_names.join(", ");
    }
    let numbers = config.get_hostaddrs().iter().enumerate();
    let numbers = numbers.map(|(n, address)| format!("{address}:{}", port(config, n)));
    numbers.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::postgres::{Postgres, PostgresOptions};
    use crate::testing::cluster::cluster;
    use crate::testing::on_postgres::{database, is_there};

    #[test]
    fn each_host_keeps_all_settings() {
        let url = "postgres://a:p@[::1]:5,%2Ftmp:6/b?connect_timeout=3&keepalives_interval=4&options=-c%20x%3D1\
            &target_session_attrs=read-write&sslmode=require&channel_binding=require&tcp_user_timeout=7&keepalives_retries=8";
        let config: Config = url.parse().expect("a URL");
        let each = each(&config);
        let all: Vec<_> = each.iter().map(address).collect();
        assert_eq!(all.join(", "), address(&config));
        let shown = |host: &str, port: u16| {
            let one = format!(
                "postgres://a:p@{host}:{port}/b?{}",
                url.split_once('?').expect("settings").1
            );
            one.parse::<Config>().expect("a URL")
        };
        assert_eq!(each, [shown("[::1]", 5), shown("%2Ftmp", 6)]);
        let random: Config = format!("{url}&load_balance_hosts=random").parse().expect("a URL");
        assert_eq!(super::each(&random), std::slice::from_ref(&random));
    }

    fn refusing_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    }

    /// What is said about the database at `url`; nothing if it can be used.
    fn told(url: &str) -> Option<String> {
        Postgres::open(&PostgresOptions::new(url)).err().map(|error| error.to_string())
    }

    #[test]
    fn why_each_host_cannot_be_used_is_said() {
        let (one, other) = (refusing_port(), refusing_port());
        let told = told(&format!("postgres://a:hunter2@localhost:{one},127.0.0.1:{other}/b"))
            .expect("no database");
        for address in [format!("localhost:{one}"), format!("127.0.0.1:{other}")] {
            assert!(told.contains(&format!("at {address}: Connection refused")), "{told}");
        }
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn the_first_host_that_takes_writes_is_used_whatever_is_wrong_with_those_before() {
        if !is_there() {
            return;
        }
        let url = database();
        let (server, name) = url.rsplit_once('/').expect("a name");
        let (user, port) = server.rsplit_once(':').expect("a port");
        let refusing = refusing_port();
        let both = format!("{user}:{refusing},127.0.0.1:{port}");
        assert_eq!(told(&format!("{both}/{name}")), None);
        let by_address = format!("{both}/{name}?hostaddr=127.0.0.1,127.0.0.1");
        assert_eq!(told(&by_address), None);
        let random = format!("{both}/{name}?load_balance_hosts=random");
        assert_eq!(told(&random), None);
        let told = told(&format!("{both}/nowhere")).expect("no such database");
        assert!(told.contains(&format!("127.0.0.1:{refusing}: Connection refused")), "{told}");
        assert!(told.contains("does not exist (3D000)"), "{told}");
    }

    #[test]
    fn a_socket_needs_no_name() {
        if !is_there() {
            return;
        }
        let url = database();
        let folder = cluster().expect("a cluster").sql(&url, "SHOW unix_socket_directories");
        if !folder.starts_with('/') || folder.contains(',') {
            return;
        }
        let folder = folder.replace('/', "%2F");
        let at_socket = url.replace("127.0.0.1", &folder);
        assert_eq!(told(&at_socket), None);
    }
}
