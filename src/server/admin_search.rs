//! Lists of the admin API of which somebody wants only some items.
//!
//! Keeps: a request looks at a bounded number of items, however few of them match.

use super::admin::{Failure, PAGE_MAX, PageOf};

/// The maximum number of items that one request looks at to find those that match.
const LOOKED_AT_MAX: usize = 10_000;

/// A text to look for in names. Capitals do not matter.
pub(super) struct Text(String);

impl Text {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_lowercase())
    }

    pub(super) fn is_in(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.0)
    }
}

/// The items on a page of those that `is_wanted` chooses, or of all; and the last item that was looked at, if there are
/// more: the following page begins after it. So a page may be short, or empty, and have a following one.
///
/// `list` gives some of the items after the one with this name, at most as many as asked, in their order; none at the
/// end.
pub(super) async fn choose<T, N: Clone>(
    page: &PageOf,
    after: Option<N>,
    is_wanted: Option<impl Fn(&T) -> bool>,
    mut list: impl AsyncFnMut(Option<N>, usize) -> Result<Vec<T>, Failure>,
    name: impl Fn(&T) -> N,
) -> Result<(Vec<T>, Option<N>), Failure> {
    // One more shows whether this is the end.
    let at_once = if is_wanted.is_some() { PAGE_MAX } else { page.count() + 1 };
    let (mut found, mut last, mut looked_at) = (Vec::new(), after, 0);
    loop {
        let listed = list(last.clone(), at_once).await?;
        if listed.is_empty() {
            return Ok((found, None));
        }
        for item in listed {
            if found.len() == page.count() || looked_at == LOOKED_AT_MAX {
                return Ok((found, last));
            }
            looked_at += 1;
            last = Some(name(&item));
            if is_wanted.as_ref().is_none_or(|is_wanted| is_wanted(&item)) {
                found.push(item);
            }
        }
        // Others are served meanwhile.
        tokio::task::yield_now().await;
    }
}
