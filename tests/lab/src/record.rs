//! Writes down a conversation, on demand: every request as it came and every answer as it went, in the order in which the requests
//! arrived. It stands before a stand-in and changes nothing of what is said. What it holds has the secrets in it: whoever shows a
//! recording strikes them out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Response};

use crate::form;
use crate::http::{Handler, Reply, ReplyFuture, Request};

/// No stand-in answers with more.
const BODY_BYTES_MAX: usize = 16 << 20;

/// One request with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// `GET`, `POST`.
    pub method: String,
    /// As sent, still escaped.
    pub path: String,
    /// As sent, still escaped; empty when there was none.
    pub query: String,
    /// In the order sent, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The form, decoded; empty where no form was sent.
    pub form: Vec<(String, String)>,
    /// The form as it was sent, still escaped.
    pub form_as_sent: String,
    /// What was answered; `None` where the connection was closed without an answer, or nothing was answered yet.
    pub answer: Option<Answered>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// Where a recording is kept; `None` while nobody asked for one.
#[derive(Clone, Default)]
pub(crate) struct Tape(Arc<Mutex<Option<Vec<Exchange>>>>);

impl Tape {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Exchange>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records from now on, with nothing on the tape.
    pub(crate) fn start(&self) {
        *self.lock() = Some(Vec::new());
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.lock().clone().unwrap_or_default()
    }

    /// Takes down a request; the place of its answer.
    fn hear(&self, request: &Request) -> Option<usize> {
        let mut tape = self.lock();
        let tape = tape.as_mut()?;
        let form = request.form();
        tape.push(Exchange {
            method: request.method.to_string(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: texts(&request.headers),
            form_as_sent: if form.is_empty() { String::new() } else { request.body_text() },
            form,
            answer: None,
        });
        Some(tape.len() - 1)
    }

    fn answer(&self, place: usize, answered: Answered) {
        // A tape that was started anew meanwhile has no such place.
        if let Some(exchange) = self.lock().as_mut().and_then(|tape| tape.get_mut(place)) {
            exchange.answer = Some(answered);
        }
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// A stand-in with a tape before it.
pub(crate) struct Recorded<H> {
    pub(crate) inner: Arc<H>,
    pub(crate) tape: Tape,
}

impl<H: Handler> Handler for Recorded<H> {
    fn is_down(&self) -> bool {
        self.inner.is_down()
    }

    fn handle(self: Arc<Self>, request: Request) -> ReplyFuture {
        let place = self.tape.hear(&request);
        // Before the first wait, as the contract of a handler wants it.
        let reply = self.inner.clone().handle(request);
        let Some(place) = place else { return reply };
        Box::pin(async move {
            let Reply::Answer(response) = reply.await else { return Reply::Close };
            let (parts, body) = response.into_parts();
            let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else { return Reply::Close };
            let answered = Answered {
                status: parts.status.as_u16(),
                headers: texts(&parts.headers),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            self.tape.answer(place, answered);
            Reply::Answer(Response::from_parts(parts, Body::from(body)))
        })
    }
}

/// A form as it is sent: what a search for secrets has to look for too.
pub fn as_in_a_form(text: &str) -> String {
    form::encode(text)
}
