//! `health`: whether the server of this configuration accepts clients, for container managers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use eventlog_server::server::{ClientCertificates, TlsFiles};
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::config::ConfigArgs;
use crate::config::ConfigFaults;

/// Container managers ask again, and a server that takes longer is not healthy.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer answers are cut.
const ANSWER_BYTES_MAX: u64 = 4_096;

/// Check whether the server on this machine takes clients.
///
/// Requests /readyz at the address in the configuration. Exits with 0 if the server takes clients, and with 1 if
/// it does not or does not answer within five seconds. Without --config it asks at 127.0.0.1:7420. If clients need
/// certificates (`[tls] client_ca_file`), it only checks whether the port is open.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Request /healthz instead: whether the server runs at all
    #[arg(long)]
    live: bool,
}

/// The server is not healthy.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    /// Its address is unknown.
    #[error(
        "the configuration says where the server listens: give `health` the server's own --config and environment.\n\n{0}"
    )]
    Config(#[from] ConfigFaults),
    /// It does not answer.
    #[error("{url} does not answer: {cause}")]
    Silent {
        /// The requested URL.
        url: String,
        /// What went wrong.
        cause: Box<ureq::Error>,
    },
    /// It reports a problem.
    #[error("{url}: {status} {said}")]
    Unwell {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The report.
        said: String,
    },
}

pub(super) fn run(args: &Args) -> Result<(), HealthError> {
    let config = args.config.load_to_ask()?;
    let path = if args.live { "healthz" } else { "readyz" };
    let address = reachable(config.listen);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{address}/{path}");
    let needs_certificate =
        |tls: TlsFiles| tls.client_ca.is_some() && tls.clients == ClientCertificates::Required;
    if config.tls.is_some_and(needs_certificate) {
        // This command has no certificate to show, so it can only check whether the port is open.
        let open = TcpStream::connect_timeout(&address, TIMEOUT);
        return open
            .map(drop)
            .map_err(|cause| HealthError::Silent { url, cause: Box::new(cause.into()) });
    }
    // The request and the answer contain no secret, so it does not matter who answers at an address of this machine.
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        .tls_config(TlsConfig::builder().disable_verification(true).build())
        .build()
        .into();
    let silent = |cause| HealthError::Silent { url: url.clone(), cause: Box::new(cause) };
    let mut answer = agent.get(&url).call().map_err(silent)?;
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(());
    }
    let said = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let said = said.unwrap_or_default().trim_end().to_owned();
    Err(HealthError::Unwell { url, status, said })
}

/// The address at which a server that listens at `address` is reached from its own machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_this_machine() {
        for (listen, asked) in [
            ("0.0.0.0:7420", "127.0.0.1:7420"),
            ("[::]:7420", "[::1]:7420"),
            ("192.0.2.1:80", "192.0.2.1:80"),
        ] {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), asked);
        }
    }
}
