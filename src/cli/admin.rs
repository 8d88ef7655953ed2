//! The admin API of a running server, as commands use it.
//!
//! The crate `ureq` sends the requests. It blocks, which suits a command that asks one thing and ends, and it uses the
//! TLS that the WebSocket client needs anyway.

use std::fmt::Write;
use std::io::{self, Read};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::{Request, Response, StatusCode};
use ureq::tls::{Certificate, ClientCert, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::{DEFAULT, ServerUrl};
use super::connect::{is_reader_gone, no_tls};
use super::text::one_line;
use super::trust::{CaError, ConnectionArgs};
use crate::config::Token;

/// The size of a page of a list, which is also the server's maximum.
const PAGE: usize = 1_000;
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer is a page of a list.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Which server, and how its answers are printed.
#[derive(Debug, clap::Args)]
pub(super) struct AdminArgs {
    /// The server
    #[arg(long, global = true, env = "EVENTLOG_URL", default_value = DEFAULT, hide_env_values = true)]
    url: ServerUrl,
    /// The server's admin token; better set in the environment, where other users do not see it
    #[arg(long, global = true, env = "EVENTLOG_ADMIN_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl AdminArgs {
    /// What connections to another server trust. The extra headers are for this server alone.
    pub(super) fn trust(&self) -> ConnectionArgs {
        self.connection.without_headers()
    }

    /// A client of this server.
    pub(super) fn client(&self) -> Result<Admin, AdminCommandError> {
        let token = self.token.as_ref().ok_or(AdminCommandError::NoToken)?;
        let certificates =
            if self.url.is_secure() { self.connection.certificates()? } else { Vec::new() };
        let shown = if self.url.is_secure() { self.connection.shown()? } else { None };
        let shown = shown.map(|shown| shown.of_requests()).transpose()?;
        let headers = self.connection.headers();
        Ok(Admin::connecting(&self.url, token.as_str(), headers, (&certificates, shown)))
    }
}

/// A command that uses the admin API failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminCommandError {
    /// There is no token to send.
    #[error("the admin API needs a token: set EVENTLOG_ADMIN_TOKEN, or give --token")]
    NoToken,
    /// The trusted certificates could not be read.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The request failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The result cannot be printed.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    /// A file cannot be created.
    #[error("{0}")]
    File(String),
    /// Keys were not imported.
    #[cfg(feature = "postgres")]
    #[error(transparent)]
    Import(#[from] super::keys_import::ImportError),
}

impl AdminCommandError {
    /// It is no error if nobody reads the output any more (`… | head`).
    pub(super) fn unless_reader_gone(done: Result<(), Self>) -> Result<(), Self> {
        match done {
            Err(Self::Print(error)) if is_reader_gone(&error) => Ok(()),
            done => done,
        }
    }
}

/// A client of the admin API.
pub(super) struct Admin {
    agent: Agent,
    base: String,
    token: String,
    headers: Vec<(String, String)>,
}

/// A request to the admin API failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// The server did not answer.
    #[error("{url} does not answer: {cause}; {}", hint(.cause))]
    Unreachable {
        /// The requested URL.
        url: String,
        /// What went wrong.
        cause: Box<ureq::Error>,
    },
    /// The token is wrong.
    #[error(
        "the server does not accept this token; give one of its [admin] section with --token or EVENTLOG_ADMIN_TOKEN"
    )]
    WrongToken,
    /// There is no admin API at this URL.
    #[error(
        "there is no admin API at {url}. The server has one only with a token: set [admin] token and restart it. \
         If it has [admin] listen, the API is at that address: give it with --url"
    )]
    NoAdminApi {
        /// The requested URL.
        url: String,
    },
    /// The server refused, with a reason.
    #[error("{message}")]
    Refused {
        /// The reason.
        message: String,
    },
    /// The answer does not belong to this API.
    #[error("{url} answered {status}, but not as an admin API does{said}")]
    NoAnswer {
        /// The requested URL.
        url: String,
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of what it says, if that is text.
        said: String,
    },
}

/// What may be wrong if there is no answer.
fn hint(cause: &ureq::Error) -> &'static str {
    no_tls(&cause.to_string()).unwrap_or("is the server running, and is --url right?")
}

/// The beginning of `body`, to be appended to a message.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", one_line(text)),
    }
}

impl Admin {
    /// A client of the server at `url`, with the authorities that browsers trust.
    pub(super) fn new(url: &ServerUrl, token: &str) -> Self {
        Self::connecting(url, token, Vec::new(), (&[], None))
    }

    /// Like [`Admin::new`], with these additional headers, and with these authorities instead, if there are any. The
    /// other certificate is shown to a server that asks for one.
    fn connecting(
        url: &ServerUrl,
        token: &str,
        headers: Vec<(String, String)>,
        (certificates, shown): (&[Vec<u8>], Option<ClientCert>),
    ) -> Self {
        let roots = match certificates {
            [] => RootCerts::WebPki,
            some => RootCerts::from(some.iter().map(|der| Certificate::from_der(der).to_owned())),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).client_cert(shown).build())
            .build();
        Self { agent: config.into(), base: url.http(), token: token.to_owned(), headers }
    }

    /// Sends a request with an optional JSON body and reads the JSON answer.
    pub(super) fn request<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, AdminError> {
        let url = format!("{}{path}", self.base);
        let body = body.map(Value::to_string);
        read_answer(&url, &mut self.send(&url, method, body, Some(TIMEOUT))?)
    }

    /// Posts `body`, which is JSON. Waits for the answer without a time limit.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
    ) -> Result<T, AdminError> {
        let url = format!("{}{path}", self.base);
        read_answer(&url, &mut self.send(&url, "POST", Some(body), None)?)
    }

    /// Calls `each` with every item of the list at `path`, a page at a time. `list` is its name in the answer.
    pub(super) fn each<T: DeserializeOwned>(
        &self,
        path: &str,
        list: &str,
        mut each: impl FnMut(T) -> Result<(), AdminCommandError>,
    ) -> Result<(), AdminCommandError> {
        let mut after = String::new();
        let separator = if path.contains('?') { '&' } else { '?' };
        loop {
            let path = format!("{path}{separator}limit={PAGE}{after}");
            let mut page: Value = self.request("GET", &path, None)?;
            let Value::Array(items) = page[list].take() else { return Ok(()) };
            for item in items {
                each(serde_json::from_value(item).map_err(io::Error::other)?)?;
            }
            let Some(next) = page["next"].as_str() else { return Ok(()) };
            after = format!("&after={}", percent_encode(next));
        }
    }

    /// Like [`Admin::request`] without a body. Waits for the answer without a time limit.
    pub(super) fn request_patiently<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
    ) -> Result<T, AdminError> {
        let url = format!("{}{path}", self.base);
        read_answer(&url, &mut self.send(&url, method, None, None)?)
    }

    /// The content at `path`, as a stream.
    pub(super) fn download(&self, path: &str) -> Result<impl Read + use<>, AdminError> {
        let url = format!("{}{path}", self.base);
        let mut response = self.send(&url, "GET", None, None)?;
        if !response.status().is_success() {
            return Err(read_answer::<Value>(&url, &mut response).err().unwrap_or_else(|| {
                AdminError::NoAnswer { url, status: response.status(), said: String::new() }
            }));
        }
        Ok(response.into_body().into_with_config().limit(u64::MAX).reader())
    }

    fn send(
        &self,
        url: &str,
        method: &str,
        body: Option<String>,
        timeout: Option<Duration>,
    ) -> Result<Response<Body>, AdminError> {
        let unreachable = |cause: ureq::Error| AdminError::Unreachable {
            url: url.to_owned(),
            cause: Box::new(cause),
        };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {}", self.token))
            .header("accept", "application/x-ndjson, */*")
            .header("content-type", "application/json");
        let headers = self.headers.iter();
        let request = headers.fold(request, |request, (name, value)| request.header(name, value));
        let request = request.body(body.unwrap_or_default());
        let request = request.map_err(|error| unreachable(error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(timeout).build();
        self.agent.run(request).map_err(unreachable)
    }
}

fn read_answer<T: DeserializeOwned>(
    url: &str,
    response: &mut Response<Body>,
) -> Result<T, AdminError> {
    let status = response.status();
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    let body = body.unwrap_or_default();
    let url = || url.to_owned();
    if status.is_success() {
        let answer = serde_json::from_slice(&body);
        let no_answer = |_| AdminError::NoAnswer { url: url(), status, said: beginning(&body) };
        return answer.map_err(no_answer);
    }
    let said = serde_json::from_slice::<Value>(&body).ok();
    let said = said.as_ref().and_then(|answer| answer["detail"].as_str());
    match (status, said) {
        (StatusCode::UNAUTHORIZED, _) => Err(AdminError::WrongToken),
        (_, Some(message)) => Err(AdminError::Refused { message: message.to_owned() }),
        (StatusCode::NOT_FOUND, None) => Err(AdminError::NoAdminApi { url: url() }),
        (_, None) => Err(AdminError::NoAnswer { url: url(), status, said: beginning(&body) }),
    }
}

/// `text`, encoded as a segment of a path or as a value of a query.
pub(super) fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers one request with `answer` and returns the request line.
    fn answering(answer: &'static str) -> (Admin, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(&socket).lines().map(|line| line.expect("text"));
            let request: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            drop(lines);
            let (status, body) = answer.split_once('|').expect("status|body");
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
            let response = format!("{head}connection: close\r\n\r\n{body}");
            socket.write_all(response.as_bytes()).expect("sent");
            request.join("\n")
        });
        (admin_at(&url), server)
    }

    fn admin_at(url: &str) -> Admin {
        let headers = vec![("x-team".to_owned(), "blue".to_owned())];
        Admin::connecting(&url.parse().expect("a URL"), "t0ken", headers, (&[], None))
    }

    #[test]
    fn a_request_carries_the_token_and_an_answer_is_read() {
        let (admin, server) = answering("200 OK|{\"storeId\":\"team\"}");
        let answer: Value = admin.request("GET", "/admin/keys/a%2Fb", None).expect("an answer");
        assert_eq!(answer["storeId"], "team");
        let request = server.join().expect("a request").to_ascii_lowercase();
        assert!(request.starts_with("get /admin/keys/a%2fb http/1.1"), "{request}");
        assert!(request.contains("authorization: bearer t0ken"), "{request}");
        assert!(request.contains("x-team: blue"), "{request}");
    }

    #[test]
    fn refusals_say_what_to_do() {
        let refusal = |answer| {
            let (admin, server) = answering(answer);
            let error = admin.request::<Value>("GET", "/admin/keys", None).expect_err("refused");
            server.join().expect("a request");
            error.to_string()
        };
        assert!(refusal("401 Unauthorized|{\"detail\":\"no\"}").contains("EVENTLOG_ADMIN_TOKEN"));
        assert!(refusal("404 Not Found|").contains("[admin] token"));
        assert_eq!(refusal("409 Conflict|{\"detail\":\"alice has team\"}"), "alice has team");
        assert!(refusal("200 OK|<html>").contains("not as an admin API does"));
        assert!(refusal("502 Bad Gateway|<html>").contains("502"));
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        drop(listener);
        let admin = admin_at(&url);
        let error = admin.request::<Value>("GET", "/admin/keys", None).expect_err("nobody");
        assert!(error.to_string().contains(&url), "{error}");
    }

    #[test]
    fn any_name_is_one_segment() {
        assert_eq!(percent_encode("alice-1_~"), "alice-1_~");
        assert_eq!(percent_encode("../a b?c#ä%"), "%2E%2E%2Fa%20b%3Fc%23%C3%A4%25");
    }
}
