//! Names in the paths of the admin API.
//!
//! Browsers, curl and proxies take `.` and `..` in a path for steps, however they are written, so such a name would
//! never arrive. It can be in the query instead: `/stores/-?name=..`.

use std::future::{Ready, ready};
use std::ops::Deref;

use actix_web::dev::Payload;
use actix_web::web::{self, Query};
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;

use super::admin_failure::Failure;

/// Stands in the path for the name that is in the query.
const PLACEHOLDER: &str = "-";

/// The parameter of the query that has the name.
pub(super) const NAME: &str = "name";

/// What a path names. Its last name may be in the query.
pub(super) struct Path<T>(T);

impl<T> Deref for Path<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The last name in a path.
pub(super) trait LastName {
    fn last_name(&mut self) -> &mut String;
}

impl LastName for String {
    fn last_name(&mut self) -> &mut String {
        self
    }
}

impl LastName for (String, String) {
    fn last_name(&mut self) -> &mut String {
        &mut self.1
    }
}

impl<T: LastName + DeserializeOwned> FromRequest for Path<T> {
    type Error = actix_web::Error;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request).map(Self))
    }
}

fn read<T: LastName + DeserializeOwned>(request: &HttpRequest) -> Result<T, actix_web::Error> {
    let mut names =
        web::Path::<T>::from_request(request, &mut Payload::None).into_inner()?.into_inner();
    if let Some(name) = in_query(request) {
        let last = names.last_name();
        if last != PLACEHOLDER {
            let why =
                format!("the path names {last:?}, and the query another; write - in the path");
            return Err(Failure::Invalid(why).into());
        }
        *last = name;
    }
    Ok(names)
}

fn in_query(request: &HttpRequest) -> Option<String> {
    let query = Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    query.into_inner().into_iter().find_map(|(name, value)| (name == NAME).then_some(value))
}
