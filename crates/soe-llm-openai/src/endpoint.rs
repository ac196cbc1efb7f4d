//! Where requests go.

use std::fmt;
use std::sync::Arc;

use reqwest::Url;

use crate::BuildError;

/// The URL of chat completions, and the part of it that may be shown.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) url: Url,
    /// Scheme, host, port and path: never the query, which can hold a key.
    pub(crate) shown: Arc<str>,
}

const PATH: &str = "/chat/completions";

impl Endpoint {
    /// The endpoint under a base URL such as `https://api.openai.com/v1`; a query in it stays.
    pub(crate) fn new(base: &str, query: &[(String, String)]) -> Result<Self, BuildError> {
        let wrong = |reason: &str| BuildError::BaseUrl {
            reason: reason.to_owned(),
        };
        // The parser's own messages don't repeat the URL, which may hold secrets.
        let mut url =
            Url::parse(base.trim()).map_err(|error| wrong(&format!("{error} (it begins with http:// or https://)")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it has to begin with http:// or https://"));
        }
        if !url.has_host() {
            return Err(wrong("it has no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "it holds a user or a password: give a key, or a header `authorization`, to the builder",
            ));
        }
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/');
        let path = if path.ends_with(PATH) {
            path.to_owned()
        } else {
            format!("{path}{PATH}")
        };
        url.set_path(&path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let shown = shown(&url).into();
        Ok(Self { url, shown })
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Values of the query that may be secrets: all but the version of the API.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = String> {
        let pairs = self.url.query_pairs().filter(|(name, _)| name != "api-version");
        pairs.map(|(_, value)| value.into_owned())
    }
}

/// The part of a URL that may be shown.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    )
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_added_where_it_is_missing_and_the_query_stays() {
        let query = [("api-version".to_owned(), "2024-06-01".to_owned())];
        let azure = "https://me.openai.azure.com/openai/deployments/gpt";
        for (base, query, url) in [
            (
                "https://api.openai.com/v1",
                &[][..],
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "http://localhost:11434/v1/",
                &[],
                "http://localhost:11434/v1/chat/completions",
            ),
            ("http://[::1]:8080", &[], "http://[::1]:8080/chat/completions"),
            (" http://x/v1/chat/completions/\n", &[], "http://x/v1/chat/completions"),
            (
                azure,
                &query[..],
                &format!("{azure}/chat/completions?api-version=2024-06-01"),
            ),
            (
                &format!("{azure}?a=b#c"),
                &query[..],
                &format!("{azure}/chat/completions?a=b&api-version=2024-06-01"),
            ),
        ] {
            let endpoint = Endpoint::new(base, query).unwrap();
            assert_eq!(endpoint.url.as_str(), url);
            assert_eq!(endpoint.shown.as_ref(), url.split('?').next().unwrap());
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_showing_secrets() {
        for (base, reason) in [
            ("", "relative URL without a base"),
            ("api.openai.com/v1", "relative URL without a base"),
            ("localhost:11434/v1", "it has to begin with http:// or https://"),
            ("ftp://x/v1", "it has to begin with http:// or https://"),
            ("https://user:secret@x/v1", "it holds a user or a password"),
            ("https://secret@x/v1", "it holds a user or a password"),
            ("https://secret:99999/v1", "invalid port number"),
        ] {
            let error = Endpoint::new(base, &[]).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains(reason), "{base}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn the_query_is_secret() {
        let endpoint = Endpoint::new("https://x/v1?key=secret&api-version=1", &[]).unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
        assert_eq!(endpoint.secrets().collect::<Vec<_>>(), ["secret"]);
    }
}
