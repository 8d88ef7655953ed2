//! The part of the admin API that serves the files of a backup.
//!
//! Keeps: only files of the latest snapshot are served, under the names that they had in it. Leaves out: where they are
//! kept (the caller writes them), and their checksums.

use std::io::Read;

use actix_web::HttpResponse;
use actix_web::web::{self, Bytes, Path, ReqData, ServiceConfig};
use futures_util::stream;
use serde::Serialize;

use super::admin::{Answer, Failure};
use super::admin_operations::AdminEndpoint;
use super::handle::Server;
use crate::actors::audit::{self, By};
use crate::storage::{Snapshot, SnapshotFile, StorageError};

/// How much of a file is read at a time, in bytes.
const PART_BYTES: u64 = 256 << 10;

pub(super) fn configure(config: &mut ServiceConfig) {
    config
        .service(AdminEndpoint::at("/backup").post(begin).done())
        .service(AdminEndpoint::at("/backup/{generation}/{name}").get(file).done());
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Begun<'a> {
    remote_id: String,
    generation: String,
    floor: u64,
    complete: bool,
    position: u64,
    time_millis: u64,
    files: Vec<BegunFile<'a>>,
}

#[derive(Serialize)]
struct BegunFile<'a> {
    name: &'a str,
    bytes: u64,
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// Brings everything committed so far into files, and lists them.
async fn begin(server: web::Data<Server>, by: ReqData<By>) -> Answer {
    let storage = server.inner().storage.clone();
    let taken =
        web::block(move || storage.snapshot()).await.map_err(StorageError::unavailable)??;
    let snapshot = taken.ok_or(Failure::NoBackup)?;
    let (position, count) = (snapshot.position, snapshot.files.len());
    audit::note(&by, format_args!("action=backup position={position} files={count}"));
    let file = |file: &SnapshotFile| (file.name.clone(), file.bytes);
    let files: Vec<(String, u64)> = snapshot.files.iter().map(file).collect();
    let answer = HttpResponse::Ok().json(Begun {
        remote_id: hex(*snapshot.remote_id.as_bytes()),
        generation: hex(snapshot.generation),
        floor: snapshot.floor.get(),
        complete: snapshot.complete,
        position: snapshot.position,
        time_millis: snapshot.time_ms,
        files: files.iter().map(|(name, bytes)| BegunFile { name, bytes: *bytes }).collect(),
    });
    *server.inner().snapshot.lock() = Some(snapshot);
    Ok(answer)
}

fn find(snapshot: Option<&Snapshot>, generation: &str, name: &str) -> Option<SnapshotFile> {
    let snapshot = snapshot.filter(|snapshot| hex(snapshot.generation) == generation)?;
    snapshot.files.iter().find(|file| file.name == name).cloned()
}

async fn file(server: web::Data<Server>, asked: Path<(String, String)>) -> Answer {
    let (generation, name) = asked.into_inner();
    let found = find(server.inner().snapshot.lock().as_ref(), &generation, &name);
    let found = found.ok_or_else(|| Failure::NoSuchFile(name.clone()))?;
    let bytes = found.bytes;
    let opened = web::block(move || found.open()).await;
    // The archive may no longer have it.
    let opened = opened.map_err(StorageError::unavailable)?;
    let opened = opened.map_err(|_| Failure::NoSuchFile(name))?;
    let parts = stream::try_unfold((opened, bytes), |(file, left)| async move {
        if left == 0 {
            return Ok::<_, actix_web::Error>(None);
        }
        let read = web::block(move || {
            let mut part = Vec::new();
            (&file).take(left.min(PART_BYTES)).read_to_end(&mut part).map(|_| (part, file))
        });
        let (part, file) = read.await??;
        if part.is_empty() {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let left = left - part.len() as u64;
        Ok(Some((Bytes::from(part), (file, left))))
    });
    Ok(HttpResponse::Ok().no_chunking(bytes).streaming(parts))
}
