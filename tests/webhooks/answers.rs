//! What happens to entries after each kind of answer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::client::tls::{CERTIFICATE, terminator};

/// Gives these answers, and then 200.
async fn answers(replies: &'static [&'static str]) -> Receiver {
    let next = AtomicUsize::new(0);
    Receiver::start(move |_| {
        Reply::Now(replies.get(next.fetch_add(1, Ordering::SeqCst)).unwrap_or(&"200 OK"))
    })
    .await
}

#[tokio::test]
async fn what_a_receiver_cannot_take_now_comes_again_as_the_same_message() {
    let receiver = answers(&["503 Service Unavailable\r\nretry-after: 1"]).await;
    let server = serve([to("all", &receiver.url())]).await;
    write(&server, "alice", &numbered(2)).await;
    through(&server, "team").await;
    assert_eq!(receiver.lines(), ["team 1,2"; 2]);
    let received = receiver.received.lock();
    assert_eq!(received[0].headers["webhook-id"], received[1].headers["webhook-id"]);
    assert_eq!(received[0].body, received[1].body);
    let at = |n: usize| received[n].headers["webhook-timestamp"].parse::<u64>().expect("seconds");
    assert!(at(1) > at(0), "each try has its own time");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Receiver::start(|_| Reply::Now("200 OK")).await;
    let to_it: &'static str =
        format!("307 Temporary Redirect\r\nlocation: {}", elsewhere.url()).leak();
    let receiver = answers(vec![to_it].leak()).await;
    let server = serve([to("all", &receiver.url())]).await;
    write(&server, "alice", &numbered(1)).await;
    through(&server, "team").await;
    assert_eq!(receiver.lines(), ["team 1"; 2]);
    assert!(elsewhere.lines().is_empty());
}

#[tokio::test]
async fn an_entry_that_is_refused_keeps_nothing_else_back_and_can_be_sent_again() {
    let strict = Arc::new(AtomicBool::new(true));
    let is_strict = strict.clone();
    let receiver = Receiver::start(move |request| {
        let bad = request.entries().iter().any(|it| it["primaryKey"] == "t3");
        let refuses = bad && is_strict.load(Ordering::SeqCst);
        Reply::Now(if refuses { "422 Unprocessable Content" } else { "200 OK" })
    })
    .await;
    let server = serve([to("all", &receiver.url())]).await;
    write(&server, "alice", &numbered(6)).await;
    through(&server, "team").await;
    let lines = receiver.lines();
    for sequence in [1, 2, 3, 5, 6] {
        let taken = |line: &&String| {
            let sequences: Vec<&str> = line["team ".len()..].split(',').collect();
            sequences.contains(&sequence.to_string().as_str()) && !sequences.contains(&"4")
        };
        assert_eq!(lines.iter().filter(taken).count(), 1, "{sequence} once: {lines:?}");
    }
    assert_eq!(lines.iter().filter(|line| *line == "team 4").count(), 1, "alone: {lines:?}");
    let groups = server.server.groups().expect("webhooks");
    let letters = groups.dead_letters("all", None, 10).await.expect("a list");
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    assert_eq!((letter.sequence.get(), &*letter.event), (4, "TodoAdded"));
    assert!(letter.error.contains("422"), "{}", letter.error);
    strict.store(false, Ordering::SeqCst);
    groups.retry("all", &letter.store, letter.sequence).await.expect("taken now");
    assert_eq!(receiver.lines().last().map(String::as_str), Some("team 4"));
    assert!(groups.dead_letters("all", None, 10).await.expect("a list").is_empty());
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_sent_nothing_before_somebody_resumes_its_group() {
    let receiver = answers(&["410 Gone"]).await;
    let server = serve([to("all", &receiver.url())]).await;
    write(&server, "alice", &numbered(1)).await;
    receiver.requests(1).await;
    let groups = server.server.groups().expect("webhooks");
    let paused = async || groups.list().await.expect("a list")[0].paused;
    while !paused().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    write(&server, "alice", &numbered(1)).await;
    write(&server, "bob", &numbered(1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.lines(), ["team 1"]);
    groups.resume("all").await.expect("resumed");
    through(&server, "team").await;
    through(&server, "other").await;
    let entries: usize = receiver.received.lock().iter().map(|one| one.entries().len()).sum();
    assert_eq!(entries, 1 + 3, "{:?}", receiver.lines());
}

#[tokio::test]
async fn slow_and_dead_receivers_hold_up_nobody_else() {
    let good = Receiver::start(|_| Reply::Now("200 OK")).await;
    let slow = Receiver::start(|_| Reply::Never).await;
    let endless = Receiver::start(|_| Reply::Endless).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let hurried = |name: &str, url: &str| {
        let timeout = Duration::from_millis(200);
        WebhookOptions { timeout, ..to(name, url) }
    };
    let webhooks = [
        hurried("slow", &slow.url()),
        hurried("dead", &format!("http://{address}/in")),
        to("endless", &endless.url()),
        to("good", &good.url()),
    ];
    let server = serve(webhooks).await;
    for _ in 0..3 {
        let before = good.lines().len();
        write(&server, "alice", &numbered(1)).await;
        good.requests(before + 1).await;
    }
    assert_eq!(endless.requests(3).await.len(), 3, "its answer is not read to the end");
    // The same entry again, on another connection.
    assert_eq!(slow.requests(2).await[..2], ["team 1"; 2]);
    // The dead receiver comes back to life.
    let listener = TcpListener::bind(address).await.expect("the port is free");
    let revived = Receiver::on(listener, |_| Reply::Now("200 OK"));
    assert_eq!(revived.requests(1).await[0], "team 1");
}

#[tokio::test]
async fn a_receiver_behind_tls_has_to_be_trusted() {
    let receiver = Receiver::start(|_| Reply::Now("200 OK")).await;
    let address = terminator(receiver.address).await;
    let url = format!("https://localhost:{}/in", address.port());
    let trusting = |name: &str, trusted_certificates| WebhookOptions {
        trusted_certificates,
        ..to(name, &url)
    };
    let webhooks = [trusting("trusts", vec![CERTIFICATE.to_vec()]), trusting("does_not", vec![])];
    let server = serve(webhooks).await;
    write(&server, "alice", &numbered(1)).await;
    receiver.requests(1).await;
    write(&server, "alice", &numbered(1)).await;
    receiver.requests(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.lines(), ["team 1", "team 2"]);
}
