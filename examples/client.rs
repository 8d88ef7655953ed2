//! A client: writes three notes and follows the feed that contains them.
//!
//! ```text
//! eventlog-server serve --dev
//! cargo run --example client ws://127.0.0.1:7420/eventlog alice
//! ```

use std::error::Error;

use eventlog_server::client::{EventLogRemote, Options};
use eventlog_server::model::{Entry, EntryId, PublicKey, Sequence};
use futures_util::StreamExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or("ws://127.0.0.1:7420/eventlog".to_owned());
    let key = PublicKey::new(arguments.next().unwrap_or("alice".to_owned()))?;
    for line in run(&url, &key).await? {
        println!("{line}");
    }
    Ok(())
}

/// Returns one line for each entry, up to the last one that it wrote itself.
pub async fn run(url: &str, key: &PublicKey) -> Result<Vec<String>, Box<dyn Error>> {
    let remote = EventLogRemote::connect(url, Options::default()).await?;

    // The ids are made once: if the answer gets lost, the same entries are sent again, and stored once.
    let notes = ["buy milk", "call Ada", "water the plants"].map(|note| Entry {
        id: EntryId::now(),
        event: "NoteAdded".to_owned(),
        primary_key: "notes".to_owned(),
        payload: note.into(),
    });
    let sequences = remote.write(key, &notes[..]).await?;

    // Everything, from the first entry on; a program that remembers its position would start there.
    let mut changes = remote.changes(key, Sequence::FIRST);
    let mut lines = Vec::new();
    while let Some(change) = changes.next().await {
        let change = change?;
        let text = String::from_utf8_lossy(&change.entry.payload);
        lines.push(format!("{} {}: {text}", change.remote_sequence, change.entry.event));
        if Some(&change.remote_sequence) == sequences.last() {
            break;
        }
    }
    remote.close().await;
    Ok(lines)
}
