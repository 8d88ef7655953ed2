//! Stores and their lines, from a running server or a stopped one.

use std::io::{BufRead, BufReader};
use std::pin::pin;

use eventlog_server::model::{Sequence, StoreId};
use eventlog_server::protocol::lines::{Head, Line};
use eventlog_server::server::Selection;
use futures_util::StreamExt;
use serde::Deserialize;

use super::ExportError;
use crate::cli::admin::{Admin, percent_encode};
use crate::cli::place::{Opened, Place, PlaceError};

/// How many stores are listed at a time.
const PAGE: usize = 1_000;

/// How much of an answer is read at a time, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

type Put<'a> = &'a mut dyn FnMut(&str) -> Result<(), ExportError>;

/// Whether a line is an entry.
pub(super) fn is_entry(line: &str) -> bool {
    line.starts_with("{\"sequence\":")
}

/// The stores whose names come after `after`, with the last sequence of each; `None` if there are none.
pub(super) fn stores(
    place: &Place,
    after: Option<&StoreId>,
) -> Result<Option<Vec<(StoreId, Sequence)>>, ExportError> {
    let stores = match place {
        Place::Running(admin) => listed(admin, after)?,
        Place::Stopped(opened) => {
            let stores = opened.block_on(opened.server().stores(after, PAGE));
            let stores = stores.map_err(PlaceError::from)?.into_iter();
            stores.collect()
        }
    };
    Ok(Some(stores).filter(|stores| !stores.is_empty()))
}

#[derive(Deserialize)]
struct Listed {
    stores: Vec<ListedStore>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedStore {
    store_id: StoreId,
    head: u64,
    entries: u64,
}

/// The number of entries in this store, or in all stores together. `None` if that takes more than one request, or is unknown.
pub(super) fn entries(place: &Place, store: Option<&StoreId>) -> Option<u64> {
    let sizes: Vec<u64> = match (place, store) {
        (Place::Running(admin), Some(store)) => {
            let path = format!("/admin/stores/{}", percent_encode(store.as_str()));
            let store: ListedStore = admin.request("GET", &path, None).ok()?;
            vec![store.entries]
        }
        (Place::Running(admin), None) => {
            let path = format!("/admin/stores?limit={PAGE}");
            let listed: Listed = admin.request("GET", &path, None).ok()?;
            listed.stores.iter().map(|store| store.entries).collect()
        }
        (Place::Stopped(opened), _) => {
            let stores = opened.block_on(opened.server().stores(None, PAGE)).ok()?;
            let wanted = stores.iter().filter(|(name, _)| store.is_none_or(|one| one == name));
            // An approximation: trimmed entries count too.
            wanted.map(|(_, head)| head.get()).collect()
        }
    };
    (sizes.len() < PAGE).then(|| sizes.into_iter().sum())
}

impl ListedStore {
    fn head(&self) -> Result<Sequence, ExportError> {
        Sequence::new(self.head).map_err(|_| ExportError::NoAnswer)
    }
}

/// The last sequence of a store.
pub(super) fn last(place: &Place, store: &StoreId) -> Result<Sequence, ExportError> {
    match place {
        Place::Running(admin) => {
            let path = format!("/admin/stores/{}", percent_encode(store.as_str()));
            admin.request::<ListedStore>("GET", &path, None).map_err(PlaceError::from)?.head()
        }
        Place::Stopped(opened) => {
            let head = opened.block_on(opened.server().head(store)).map_err(PlaceError::from)?;
            if head.get() == 0 { Err(ExportError::NoSuchStore(store.clone())) } else { Ok(head) }
        }
    }
}

fn listed(admin: &Admin, after: Option<&StoreId>) -> Result<Vec<(StoreId, Sequence)>, ExportError> {
    let after = after.map(|store| format!("&after={}", percent_encode(store.as_str())));
    let path = format!("/admin/stores?limit={PAGE}{}", after.unwrap_or_default());
    let listed: Listed = admin.request("GET", &path, None).map_err(PlaceError::from)?;
    listed.stores.into_iter().map(|one| one.head().map(|head| (one.store_id, head))).collect()
}

/// Passes what is wanted of a store to `put`, a line at a time, each with its line end.
pub(super) fn read(
    place: &Place,
    store: &StoreId,
    wanted: &Selection,
    put: Put<'_>,
) -> Result<(), ExportError> {
    match place {
        Place::Running(admin) => of_running(admin, store, wanted, put),
        Place::Stopped(opened) => of_stopped(opened, store, wanted, put),
    }
}

/// The first line for the wanted part of a store.
pub(super) fn head(
    place: &Place,
    store: &StoreId,
    wanted: &Selection,
) -> Result<Head, ExportError> {
    let mut line = String::new();
    match place {
        Place::Running(admin) => {
            let read = lines(admin, store, wanted)?.read_line(&mut line);
            read.map_err(|_| ExportError::NoAnswer)?;
        }
        Place::Stopped(opened) => {
            let server = opened.server();
            line = opened.block_on(async {
                let lines = server.export(store, wanted.clone()).await.map_err(PlaceError::from)?;
                let page = pin!(lines).next().await.ok_or(ExportError::NoAnswer)?;
                let page = page.map_err(PlaceError::from)?;
                let line = page.split(|byte| *byte == b'\n').next().unwrap_or_default();
                Ok::<_, ExportError>(String::from_utf8_lossy(line).into_owned())
            })?;
        }
    }
    match Line::parse(&line) {
        Ok(Line::Head(head)) => Ok(head),
        _ => Err(ExportError::NoAnswer),
    }
}

/// The wanted part of a store, as a running server sends it.
fn lines(
    admin: &Admin,
    store: &StoreId,
    wanted: &Selection,
) -> Result<impl BufRead + use<>, ExportError> {
    let name = percent_encode(store.as_str());
    let mut path = format!("/admin/stores/{name}/entries?from={}", wanted.from);
    for (name, value) in wanted.filter() {
        path.extend(["&", name, "=", &percent_encode(&value)]);
    }
    let lines = admin.download(&path).map_err(PlaceError::from)?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, lines))
}

fn of_running(
    admin: &Admin,
    store: &StoreId,
    wanted: &Selection,
    put: Put<'_>,
) -> Result<(), ExportError> {
    let mut wanted = wanted.clone();
    let mut earlier = None;
    loop {
        let began = wanted.from;
        let cut = |cause, next| ExportError::Cut { store: store.clone(), cause, next };
        let cause = match (one_answer(admin, store, &mut wanted, put), earlier) {
            (Ok(Ended::Whole), _) => return Ok(()),
            (Ok(Ended::Cut(cause)), _) => cause,
            (Err(ExportError::Place(_)), Some(cause)) => return Err(cut(cause, began)),
            (Err(error), _) => return Err(error),
        };
        // For example, because the reader of the output paused, and the server does not wait that long.
        if wanted.from == began {
            return Err(cut(cause, began));
        }
        let next = wanted.from;
        eprintln!("store {store:?}: the connection ended ({cause}); going on at sequence {next}");
        earlier = Some(cause);
    }
}

/// How an answer ended.
enum Ended {
    Whole,
    /// Before its last line, for this reason.
    Cut(String),
}

/// Passes on the whole lines of one answer. From then on, what comes behind them is `wanted`.
fn one_answer(
    admin: &Admin,
    store: &StoreId,
    wanted: &mut Selection,
    put: Put<'_>,
) -> Result<Ended, ExportError> {
    let mut lines = lines(admin, store, wanted)?;
    let (mut line, mut last) = (String::new(), String::new());
    let ended = loop {
        line.clear();
        match lines.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {}
            Ok(_) => break Ended::Cut("the rest of the answer is missing".to_owned()),
            Err(error) => break Ended::Cut(error.to_string()),
        }
        put(&line)?;
        if line.starts_with("{\"end\":") {
            return Ok(Ended::Whole);
        }
        if is_entry(&line) {
            // Only the sequence of the last one matters.
            std::mem::swap(&mut line, &mut last);
        }
    };
    if let Ok(Line::Entry(entry)) = Line::parse(&last)
        && let Some(sequence) = entry.sequence
    {
        wanted.from = sequence.next();
    }
    Ok(ended)
}

fn of_stopped(
    opened: &Opened,
    store: &StoreId,
    wanted: &Selection,
    put: Put<'_>,
) -> Result<(), ExportError> {
    let server = opened.server();
    opened.block_on(async {
        let after = server.head(store).await.map_err(PlaceError::from)?;
        let lines = server.export(store, wanted.clone()).await.map_err(PlaceError::from)?;
        if after.get() == 0 {
            return Err(ExportError::NoSuchStore(store.clone()));
        }
        let mut lines = pin!(lines);
        while let Some(page) = lines.next().await {
            let page = page.map_err(PlaceError::from)?;
            let page = std::str::from_utf8(&page).map_err(|_| ExportError::NoAnswer)?;
            page.split_inclusive('\n').try_for_each(&mut *put)?;
        }
        Ok(())
    })
}
