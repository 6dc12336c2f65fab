//! Which part of a list is asked for, as the query of a request says it.

use crate::error::Error;
use crate::head::Rejection;
use crate::percent;

/// How many are told if the query does not say.
const USUAL: usize = 100;
/// The most that are told at once.
const MOST: usize = 1000;

/// A part of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Where it begins, as the part before said; `None`: at the beginning.
    pub(super) after: Option<String>,
    /// How many.
    pub(super) limit: usize,
}

impl Page {
    /// What `query` asks for: `limit=1..1000`, `after=…`. Anything else is refused.
    pub(super) fn of(query: &str) -> Result<Page, Error> {
        let mut page = Page {
            after: None,
            limit: USUAL,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = String::from_utf8(percent::decoded(value).collect()).ok();
            let limit = || {
                value
                    .as_deref()?
                    .parse()
                    .ok()
                    .filter(|n| (1..=MOST).contains(n))
            };
            match name {
                "after" => page.after = Some(value.ok_or(Rejection::Path)?),
                "limit" => page.limit = limit().ok_or(Rejection::Path)?,
                _ => return Err(Rejection::Path.into()),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_where_a_part_begins_and_how_long_it_is() {
        let page = |after: Option<&str>, limit| Page {
            after: after.map(str::to_owned),
            limit,
        };
        assert_eq!(Page::of("").unwrap(), page(None, USUAL));
        let asked = Page::of("limit=7&after=a%2Fb").unwrap();
        assert_eq!(asked, page(Some("a/b"), 7));
        for bad in ["limit=0", "limit=1001", "limit=x", "after=%ff", "filter=a"] {
            assert!(Page::of(bad).is_err(), "{bad}");
        }
    }
}
