//! `POST /v1/fill`: fills the blanks of a text, from left to right.

use axum::Json;
use glm_model::{Adapter, Fill, FinishReason, Request, TextStream, Tokenizer};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Answers, Reader, Step, Usage};
use super::body::Body;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody, Result};
use super::sampling::{Sampled, sampled_request};
use super::served::{Question, Served};
use super::usage::UsageBody;
use crate::api::fields::Fields;
use crate::limits::server::MOST_BLANKS;

sampled_request! {
    /// A text with blanks.
    pub struct FillRequest {
        /// The text, with `[MASK]`, `[sMASK]` or `[gMASK]` for blanks.
        pub text: String,
    }
}

impl Fields for FillRequest {}

/// The filled text.
#[derive(Debug, Serialize, ToSchema)]
pub struct FilledText {
    /// The whole text. Blanks that were not filled are unchanged.
    text: String,
    /// What fills each blank.
    spans: Vec<String>,
    /// How each blank was filled.
    answers: Vec<BlankAnswer>,
    usage: UsageBody,
}

/// How a blank was filled.
#[derive(Debug, Serialize, ToSchema)]
pub struct BlankAnswer {
    text: String,
    ids: Vec<u32>,
    /// Why the answer ended: stop, length or context.
    finish: &'static str,
    prompt_tokens: usize,
    seed: u64,
}

/// Fills blanks.
#[utoipa::path(
    post,
    path = "/v1/fill",
    request_body = FillRequest,
    responses(
        (status = 200, description = "The filled text", body = FilledText),
        (status = "4XX", description = "The request is wrong", body = ErrorBody),
        (status = "5XX", description = "There is no answer now", body = ErrorBody),
    )
)]
pub async fn fill(
    caller: Caller,
    Body(mut request): Body<FillRequest>,
) -> Result<Json<FilledText>> {
    let user = request.user.take();
    let sampled = request.sampled();
    let user = user.as_deref();
    let begun = caller.encode(user, |served| begin(served, &request, &sampled)).await?;
    let Begun { mut fill, adapter, request: mut answer, stream } = begun;
    // Kept for all blanks: to be refused at a later one would lose the earlier.
    let admitted = caller.admit(user, 1)?;
    let (mut answers, mut usage) = (Vec::new(), Usage::default());
    while let Some(prompt) = fill.prompt() {
        let question = Question {
            prompts: vec![prompt],
            adapter: adapter.clone(),
            choices: 1,
            request: answer.clone(),
            form: None,
            readers: vec![Reader::new(stream.clone(), None)],
        };
        let events = admitted.ask(question).await?;
        let (blank, ends) = answered(&caller, events, &mut usage, answer.sampling.seed).await?;
        // A stop string ended the text, and the ids contain more than it.
        let put = |fill: &mut Fill, tokenizer: &Tokenizer| match ends {
            Ends::StopString => fill.fill(tokenizer, &tokenizer.encode(&blank.text)?),
            _ => fill.fill(tokenizer, &blank.ids),
        };
        admitted.encode(|served| Ok(put(&mut fill, served.tokenizer())?)).await?;
        answers.push(blank);
        if ends == Ends::Context {
            break;
        }
        // A different seed for each blank.
        answer.sampling.seed = answer.sampling.seed.wrapping_add(1);
    }
    let (text, spans) = (fill.written(), fill.spans().to_vec());
    Ok(Json(FilledText { text, spans, answers, usage: usage.into() }))
}

/// A text whose blanks are to be filled.
struct Begun {
    fill: Fill,
    adapter: Option<Adapter>,
    /// What is asked for each blank.
    request: Request,
    stream: TextStream<'static>,
}

fn begin(served: &Served, request: &FillRequest, sampled: &Sampled) -> Result<Begun> {
    let adapter = served.adapter(request.model.as_deref())?;
    let mut of_blank = sampled.request(served.bundle())?;
    if !sampled.ignore_eos {
        of_blank.stop_ids.clone_from(&served.model().config().special.ends);
    }
    let tokenizer = served.tokenizer();
    let stream = sampled.stopping(TextStream::new(tokenizer).without_special())?;
    let wrong = |error| ApiError::from(error).with_param("text");
    let fill = Fill::new(tokenizer, &request.text).map_err(wrong)?;
    match fill.blanks().len() {
        0..=MOST_BLANKS => Ok(Begun { fill, adapter, request: of_blank, stream }),
        _ => {
            let problem = format!("the text has more than {MOST_BLANKS} blanks");
            Err(ApiError::field("text", problem))
        }
    }
}

/// What has ended the text of a blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    StopString,
    Context,
    Other,
}

/// What fills a blank, and what has ended it.
async fn answered(
    caller: &Caller,
    events: Answers,
    usage: &mut Usage,
    seed: u64,
) -> Result<(BlankAnswer, Ends)> {
    let (mut text, mut ids) = (String::new(), Vec::new());
    let (mut finish, mut ends) = (FinishReason::Stop, Ends::Other);
    let add = |step: Step| {
        text += &step.text();
        ends = match step.finish {
            _ if step.stop.is_some() => Ends::StopString,
            Some(FinishReason::Context) => Ends::Context,
            _ => Ends::Other,
        };
        finish = step.finish.unwrap_or(finish);
        ids.extend(step.token.map(|token| token.id));
    };
    let used = caller.collect(events, add).await?;
    usage.prompt += used.prompt;
    usage.cached += used.cached;
    usage.answer += used.answer;
    caller.record(*usage);
    let blank = BlankAnswer { text, ids, finish: finish.name(), prompt_tokens: used.prompt, seed };
    Ok((blank, ends))
}
