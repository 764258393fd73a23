//! Answers: JSON, streams, errors with docker's codes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes, Frame};
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::image::Refused;
use crate::{engine, image};

/// What is answered with.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// A request that is refused: a code, and a message for people.
#[derive(Debug)]
pub(super) struct Refusal {
    pub code: StatusCode,
    pub message: String,
}

/// What a handler returns.
pub(super) type Handled = Result<Reply, Refusal>;

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self { code: StatusCode::NOT_FOUND, message: message.into() }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { code: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    pub(super) fn into_reply(self) -> Reply {
        // 304 has no body (RFC 9110, section 15.4.5).
        if self.code == StatusCode::NOT_MODIFIED {
            return empty(self.code);
        }
        json(self.code, &serde_json::json!({"message": self.message}))
    }
}

impl From<engine::Error> for Refusal {
    fn from(error: engine::Error) -> Self {
        use engine::Error as E;
        let code = match &error {
            E::Image(error) => return image_refusal(error),
            E::Missing { .. } => StatusCode::NOT_FOUND,
            E::Forbidden { .. } => StatusCode::FORBIDDEN,
            E::Conflict { .. } | E::NameInUse { .. } => StatusCode::CONFLICT,
            E::Already { .. } => StatusCode::NOT_MODIFIED,
            E::Bad { .. }
            | E::BadName { .. }
            | E::BadHostname { .. }
            | E::BadVariable { .. }
            | E::Command { .. }
            | E::CpusOutOfRange { .. }
            | E::EmptyCommand
            | E::MemoryTooSmall { .. }
            | E::NoCommand { .. }
            | E::RelativeDirectory { .. }
            | E::SwapBelowMemory
            | E::SwapWithoutMemory
            | E::Unsupported { .. }
            | E::VmMemoryTooSmall { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code, message: error.to_string() }
    }
}

impl From<image::Error> for Refusal {
    fn from(error: image::Error) -> Self {
        image_refusal(&error)
    }
}

pub(super) fn image_refusal(error: &image::Error) -> Refusal {
    use image::Error as E;
    let code = match error {
        // The client takes this wording for "pull it, then try again".
        E::NotFound { name } => return Refusal::missing(format!("No such image: {name}")),
        E::InUse { .. } | E::Names { .. } => StatusCode::CONFLICT,
        E::NotHere { .. }
        | E::Platform { .. }
        | E::Registry { refused: Refused::Missing | Refused::Denied, .. } => StatusCode::NOT_FOUND,
        E::Registry { refused: Refused::Credentials, .. } => StatusCode::UNAUTHORIZED,
        E::BadPlatform { .. } | E::Name { .. } | E::Digest(_) | E::Ambiguous { .. } | E::User { .. } => {
            StatusCode::BAD_REQUEST
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Refusal { code, message: error.to_string() }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::bad(format!("invalid JSON: {error}"))
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::internal(error.to_string())
    }
}

fn full(code: StatusCode, kind: &'static str, bytes: Vec<u8>) -> Reply {
    let mut reply = Response::new(Full::new(bytes.into()).boxed_unsync());
    *reply.status_mut() = code;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}

/// A JSON body.
pub(super) fn json(code: StatusCode, value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(bytes) => full(code, "application/json", bytes),
        Err(error) => full(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
    }
}

/// A JSON body of a request that went well.
pub(super) fn ok(value: &impl Serialize) -> Reply {
    json(StatusCode::OK, value)
}

/// Nothing but a code.
pub(super) fn empty(code: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default().boxed_unsync());
    *reply.status_mut() = code;
    reply
}

/// It is done.
pub(super) fn done() -> Reply {
    empty(StatusCode::NO_CONTENT)
}

/// A few words.
pub(super) fn text(words: &str) -> Reply {
    full(StatusCode::OK, "text/plain; charset=utf-8", words.as_bytes().to_vec())
}

/// A body that is written while it is read. The headers go out at once.
pub(super) fn streamed(kind: &'static str) -> (mpsc::Sender<Bytes>, Reply) {
    let (sender, receiver) = mpsc::channel(16);
    let mut reply = Response::new(Stream(receiver).boxed_unsync());
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    (sender, reply)
}

/// A line of JSON for a streamed body.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
