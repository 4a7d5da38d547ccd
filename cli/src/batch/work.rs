//! Requests are answered together, as many as there is room for.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use glm_model::{Batch, Client, Event, Ticket};
use serde_json::Value;

use super::request::{Problem, Request, Response};
use crate::api::answer::{Reading, token_of};
use crate::api::error::ApiError;
use crate::api::model::{ApiModel, Question};

/// A request that has been answered: its place among those of the shard.
pub struct Answered {
    pub place: usize,
    pub custom_id: Option<String>,
    pub result: std::result::Result<Value, Problem>,
}

/// The requests that are being answered.
pub struct Work<'m> {
    model: &'m ApiModel,
    batch: Batch,
    live: BTreeMap<usize, Live>,
    /// The request of a submission, and the number of the prompt in it.
    tickets: HashMap<Ticket, (usize, usize)>,
}

struct Live {
    custom_id: Option<String>,
    reading: Reading,
    response: Response,
    tickets: Vec<Ticket>,
}

impl<'m> Work<'m> {
    pub fn new(model: &'m ApiModel, batch: Batch) -> Self {
        Self { model, batch, live: BTreeMap::new(), tickets: HashMap::new() }
    }

    /// Requests that are being answered.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Tokens of answers so far.
    pub fn tokens(&self) -> u64 {
        self.batch.stats().answer_tokens
    }

    /// Adds a request. It is answered at once if it is wrong.
    pub fn add(&mut self, place: usize, request: Request) -> Option<Answered> {
        let Request { custom_id, asked } = request;
        let failed = |custom_id, problem| Some(Answered { place, custom_id, result: Err(problem) });
        let (mut question, response) = match asked {
            Ok(asked) => asked,
            Err(problem) => return failed(custom_id, problem),
        };
        let reading = Reading::new(&mut question, self.model.tokenizer());
        match self.submit(place, &mut question) {
            Ok(tickets) => {
                self.live.insert(place, Live { custom_id, reading, response, tickets });
                None
            }
            Err(error) => failed(custom_id, Problem::Request(error)),
        }
    }

    /// All prompts of a question, or none.
    fn submit(&mut self, place: usize, question: &mut Question) -> Result<Vec<Ticket>, ApiError> {
        let mut tickets = Vec::new();
        for submission in self.model.submissions(question, Client::default())? {
            match self.batch.submit(submission) {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => {
                    tickets.into_iter().for_each(|ticket| self.batch.cancel(ticket));
                    return Err(error.into());
                }
            }
        }
        let numbered =
            tickets.iter().enumerate().map(|(prompt, &ticket)| (ticket, (place, prompt)));
        self.tickets.extend(numbered);
        Ok(tickets)
    }

    /// Computes the next tokens of all answers, and passes on the requests that are answered.
    pub fn pass(&mut self) -> Vec<Answered> {
        let Self { batch, live, tickets, .. } = self;
        let mut over: BTreeMap<usize, Option<ApiError>> = BTreeMap::new();
        let mut stopped = Vec::new();
        batch.pass(&mut |ticket, event: Event| {
            let Some(&(place, prompt)) = tickets.get(&ticket) else { return };
            let Some(request) = live.get_mut(&place).filter(|_| !over.contains_key(&place)) else {
                return;
            };
            let choice = token_of(&event);
            match request.reading.step(prompt, event) {
                Ok(Some(step)) => {
                    if step.finish.is_some() {
                        stopped.extend(choice.map(|choice| (ticket, choice)));
                    }
                    request.response.add(step);
                }
                Ok(None) => {}
                Err(error) => {
                    over.insert(place, Some(error));
                    return;
                }
            }
            if request.reading.is_over() {
                over.insert(place, None);
            }
        });
        // A stop string has ended them.
        stopped.into_iter().for_each(|(ticket, choice)| batch.stop(ticket, choice));
        over.into_iter().filter_map(|(place, error)| self.end(place, error)).collect()
    }

    fn end(&mut self, place: usize, error: Option<ApiError>) -> Option<Answered> {
        let Live { custom_id, reading, response, tickets } = self.live.remove(&place)?;
        for ticket in tickets {
            // An error has left the others in the batch.
            self.batch.cancel(ticket);
            self.tickets.remove(&ticket);
        }
        let result = match error {
            None => Ok(response.finish(reading.usage())),
            Some(error) => Err(Problem::Request(error)),
        };
        Some(Answered { place, custom_id, result })
    }
}
