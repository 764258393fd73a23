//! What a request says beside its path: the query, the body.

use std::collections::HashMap;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::de::DeserializeOwned;

use super::reply::Refusal;

/// The largest JSON body that is read; docker's own limit for configurations.
const LARGEST: usize = 4 << 20;

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    values: HashMap<String, Vec<String>>,
    /// The version of the API that the client speaks.
    version: (u32, u32),
}

impl Query {
    pub(super) fn of(text: &str, version: (u32, u32)) -> Self {
        let mut query: HashMap<String, Vec<String>> = HashMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            query.entry(decode(name)).or_default().push(decode(value));
        }
        Self { values: query, version }
    }

    /// Whether the client speaks a version of the API before this one.
    pub(super) fn before(&self, version: (u32, u32)) -> bool {
        self.version < version
    }

    /// The value, where it is given and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All values of a name that is given several times.
    pub(super) fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Docker's booleans: anything but these is true (httputils.BoolValue).
    pub(super) fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| {
            !matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "none")
        })
    }

    /// A number, where one is given.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Refusal> {
        let wrong =
            |value: &str| Refusal::bad(format!("invalid value for '{name}': \"{value}\" is no number"));
        self.get(name).map(|value| value.parse().map_err(|_| wrong(value))).transpose()
    }
}

/// Percent-decoding (RFC 3986, section 2.1), and `+` for a blank as forms have it.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = behind;
        match (byte, escaped) {
            (b'%', Some(value)) => {
                bytes.push(value);
                rest = &behind[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The body as JSON; an empty one is the default.
pub(super) async fn body<T: DeserializeOwned + Default>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bytes = Limited::new(request.into_body(), LARGEST).collect().await.map_err(|error| Refusal {
        code: StatusCode::BAD_REQUEST,
        message: format!("the request's body: {error}"),
    })?;
    let bytes = bytes.to_bytes();
    if bytes.is_empty() { Ok(T::default()) } else { Ok(serde_json::from_slice(&bytes)?) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded() {
        let query = Query::of("name=a%20b+c&all=1&size=0&filters=%7B%22x%22%7D&bad=%zz%", (1, 40));
        assert!(query.before((1, 42)) && !query.before((1, 40)));
        assert_eq!(query.get("name"), Some("a b c"));
        assert_eq!(query.get("filters"), Some("{\"x\"}"));
        assert_eq!(query.get("bad"), Some("%zz%"));
        assert!(query.is("all") && !query.is("size") && !query.is("nothing"));
        assert!(query.number::<u32>("name").is_err());
        assert_eq!(query.number::<u32>("all").unwrap(), Some(1));
    }
}
