//! The files of the console, as they are served: the page is what is in this folder, and there is no build step.
//!
//! Keeps: all of it is in the program, so that a server without internet access has a console of the matching version.
//! Leaves out: where it is served, and who may see the data (`server::console`).

/// A file of the console.
pub(crate) struct Asset {
    /// Relative to the console's own path.
    pub(crate) path: &'static str,
    /// Its media type, for `Content-Type`.
    pub(crate) media: &'static str,
    pub(crate) bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The style sheets in their order. They are served as one file, because the page shows nothing before it has all of them.
const STYLES: &[&[u8]] = &[
    include_bytes!("vendor/uPlot.css"),
    include_bytes!("style/frame.css"),
    include_bytes!("style/things.css"),
    include_bytes!("style/lists.css"),
    include_bytes!("style/controls.css"),
    include_bytes!("style/phone.css"),
];

const ONE_STYLE: &[u8] = &joined::<{ length(STYLES) }>(STYLES);

const fn length(parts: &[&[u8]]) -> usize {
    let (mut at, mut length) = (0, 0);
    while at < parts.len() {
        length += parts[at].len();
        at += 1;
    }
    length
}

const fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let (mut all, mut part, mut at) = ([0; N], 0, 0);
    while part < parts.len() {
        let mut byte = 0;
        while byte < parts[part].len() {
            all[at] = parts[part][byte];
            at += 1;
            byte += 1;
        }
        part += 1;
    }
    all
}

macro_rules! assets {
    ($($path:literal: $media:expr,)*) => {
        &[
            $(Asset { path: $path, media: $media, bytes: include_bytes!($path) },)*
            Asset { path: "style.css", media: STYLE, bytes: ONE_STYLE },
        ]
    };
}

/// All files; the page is the first.
pub(crate) const ASSETS: &[Asset] = assets! {
    "index.html": HTML,
    "icon.svg": IMAGE,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "chart.js": SCRIPT,
    "format.js": SCRIPT,
    "msgpack.js": SCRIPT,
    "parts.js": SCRIPT,
    "route.js": SCRIPT,
    "views/access.js": SCRIPT,
    "views/entry.js": SCRIPT,
    "views/erase.js": SCRIPT,
    "views/feed.js": SCRIPT,
    "views/groups.js": SCRIPT,
    "views/keys.js": SCRIPT,
    "views/overview.js": SCRIPT,
    "views/sessions.js": SCRIPT,
    "views/signin.js": SCRIPT,
    "views/store.js": SCRIPT,
    "views/stores.js": SCRIPT,
    "views/write.js": SCRIPT,
    "vendor/preact-htm.js": SCRIPT,
    "vendor/uPlot.js": SCRIPT,
    "vendor/README.md": TEXT,
    "vendor/htm.LICENSE": TEXT,
    "vendor/preact.LICENSE": TEXT,
    "vendor/uPlot.LICENSE": TEXT,
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The text in quotes after one of these words is the name of a file.
    fn named<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
        let behind = text.split(word).skip(1).filter_map(|rest| rest.split('"').next());
        behind.filter(|name| matches!(name.rsplit('.').next(), Some("js" | "css")))
    }

    #[test]
    fn every_file_that_another_one_names_is_there() {
        let paths: BTreeSet<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        assert_eq!(paths.len(), ASSETS.len(), "each is there once");
        let mut found = 0;
        for asset in ASSETS.iter().filter(|asset| !asset.path.starts_with("vendor/")) {
            let text = std::str::from_utf8(asset.bytes).expect("text");
            let folder = asset.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            for name in named(text, "from \"").chain(named(text, "import(\"")) {
                let path = match name.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("{folder}/{}", name.trim_start_matches("./")),
                };
                let path = path.trim_start_matches('/');
                assert!(paths.contains(path), "{} names {path}", asset.path);
                found += 1;
            }
            for name in named(text, "=\"console/") {
                assert!(paths.contains(name), "{} names {name}", asset.path);
                found += 1;
            }
        }
        assert!(found > 20, "{found}");
    }

    #[test]
    fn the_page_has_no_script_or_style_of_its_own() {
        let page = std::str::from_utf8(ASSETS[0].bytes).expect("text");
        for forbidden in ["<style", "style=", "onload", "onclick", "<script>", "http:", "https:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
