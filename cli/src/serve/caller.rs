//! What the handlers of answers have in common: a question is asked, and its answers are collected or sent in pieces.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use glm_model::Client;

use super::answer::{Answers, Step, Usage};
use super::engine::Places;
use super::error::{ApiError, Result};
use super::listen::Peer;
use super::log::Record;
use super::served::{Question, Served, client};
use super::{App, sse};

/// Who has sent a request, and until when it is answered.
pub struct Caller {
    app: Arc<App>,
    record: Arc<Record>,
    peer: Peer,
    deadline: Option<Instant>,
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self> {
        let (record, peer) =
            (parts.extensions.get::<Arc<Record>>(), parts.extensions.get::<Peer>());
        let (Some(record), Some(peer)) = (record, peer) else {
            return Err(ApiError::internal("the client of the request is not known"));
        };
        let deadline = app.request_timeout.map(|time| Instant::now() + time);
        Ok(Self { app: Arc::clone(app), record: Arc::clone(record), peer: *peer, deadline })
    }
}

impl Caller {
    /// The model.
    ///
    /// # Errors
    /// As [`App::served`].
    pub fn served(&self) -> Result<&Served> {
        self.app.served()
    }

    /// Does work on texts of this user.
    ///
    /// # Errors
    /// If too many requests wait for that, or the error of the work.
    pub async fn encode<T>(
        &self,
        user: Option<&str>,
        work: impl FnOnce(&Served) -> Result<T>,
    ) -> Result<T> {
        let (served, client) = (self.served()?, client(self.peer, user));
        served.encoding().texts.run(client, self.deadline, false, || work(served)).await
    }

    /// Makes a question of a request of this user, and asks it.
    ///
    /// # Errors
    /// If the request is wrong, or cannot be answered now.
    pub async fn ask<T>(
        &self,
        user: Option<&str>,
        question: impl FnOnce(&Served) -> Result<(Question, T)>,
    ) -> Result<(Answers, T)> {
        let (mut question, rest) = self.encode(user, question).await?;
        let (served, client) = (self.served()?, client(self.peer, user));
        if question.form.is_some() {
            let grammars = &served.encoding().grammars;
            let compile = || served.constrain(&mut question);
            grammars.run(client, self.deadline, false, compile).await?;
        }
        let answers = served.ask(question, client, self.deadline, None).await?;
        Ok((answers, rest))
    }

    /// Takes places that a request of this user keeps for answers that come one after the other.
    ///
    /// # Errors
    /// If too many answers wait, or the address has half of the places for such answers.
    pub fn admit(&self, user: Option<&str>, answers: usize) -> Result<Admitted<'_>> {
        let served = self.served()?;
        let client = client(self.peer, user);
        let places = served.places(client, answers)?;
        Ok(Admitted { served, client, deadline: self.deadline, places })
    }

    /// Waits for the end of the answers.
    ///
    /// # Errors
    /// As [`Answers::next`].
    pub async fn collect(&self, mut answers: Answers, mut add: impl FnMut(Step)) -> Result<Usage> {
        loop {
            let step = answers.next().await;
            self.record.set(answers.usage());
            match step? {
                Some(step) => add(step),
                None => return Ok(answers.usage()),
            }
        }
    }

    /// Sets the tokens of the request in the log.
    pub fn record(&self, usage: Usage) {
        self.record.set(usage);
    }

    /// Sends the answers in pieces.
    pub fn stream(self, answers: Answers, events: impl sse::Events) -> Response {
        sse::respond(answers, events, self.record)
    }
}

/// A request that has places for its answers. Once one of them has begun, it is not refused any more, also not by a server that is about
/// to end.
pub struct Admitted<'c> {
    served: &'c Served,
    client: Client,
    deadline: Option<Instant>,
    places: Places,
}

impl Admitted<'_> {
    /// Does work on texts.
    ///
    /// # Errors
    /// If the time of the request is over, or the error of the work.
    pub async fn encode<T>(&self, work: impl FnOnce(&Served) -> Result<T>) -> Result<T> {
        let Self { served, client, deadline, .. } = *self;
        served.encoding().texts.run(client, deadline, true, || work(served)).await
    }

    /// Asks a question.
    ///
    /// # Errors
    /// If it cannot be answered.
    pub async fn ask(&self, question: Question) -> Result<Answers> {
        self.served.ask(question, self.client, self.deadline, Some(self.places.clone())).await
    }
}
