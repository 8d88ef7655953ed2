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

macro_rules! assets {
    ($($path:literal: $media:expr,)*) => {
        &[$(Asset { path: $path, media: $media, bytes: include_bytes!($path) },)*]
    };
}

/// All files; the page is the first.
pub(crate) const ASSETS: &[Asset] = assets! {
    "index.html": HTML,
    "icon.svg": IMAGE,
    "style/frame.css": STYLE,
    "style/things.css": STYLE,
    "style/lists.css": STYLE,
    "style/controls.css": STYLE,
    "style/phone.css": STYLE,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "chart.js": SCRIPT,
    "format.js": SCRIPT,
    "msgpack.js": SCRIPT,
    "parts.js": SCRIPT,
    "route.js": SCRIPT,
    "views/access.js": SCRIPT,
    "views/entry.js": SCRIPT,
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
    "vendor/uPlot.css": STYLE,
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
