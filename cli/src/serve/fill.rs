//! `POST /v1/fill`: fills the blanks of a text, from left to right.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use glm_model::{Fill, FinishReason, TextStream};
use serde::Serialize;
use utoipa::ToSchema;

use super::App;
use super::answer::{Answers, Reader, Usage};
use super::body::Body;
use super::error::{ApiError, ErrorBody, Result};
use super::listen::Peer;
use super::log::Record;
use super::sampling::sampled_request;
use super::served::{Question, client};
use super::usage::UsageBody;

sampled_request! {
    /// A text with blanks.
    pub struct FillRequest {
        /// The text, with `[MASK]`, `[sMASK]` or `[gMASK]` for blanks.
        pub text: String,
    }
}

/// Most blanks of a text.
const MOST_BLANKS: usize = 64;

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
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    Extension(peer): Extension<Peer>,
    Body(mut request): Body<FillRequest>,
) -> Result<Json<FilledText>> {
    let served = app.served()?;
    let deadline = app.deadline();
    served.check_name(request.model.as_deref())?;
    let sampled = request.sampled();
    let mut answer = sampled.request(served.bundle())?;
    if !sampled.ignore_eos {
        answer.stop_ids.clone_from(&served.model().config().special.ends);
    }
    let tokenizer = served.tokenizer();
    let stream = TextStream::new(tokenizer).without_special().stopping_at(sampled.stop)?;
    let fill = served.encode(|| Ok(Fill::new(tokenizer, &request.text)?)).await;
    let mut fill = fill.map_err(|error| error.with_param("text"))?;
    if fill.blanks().len() > MOST_BLANKS {
        return Err(ApiError::field(
            "text",
            format!("the text has more than {MOST_BLANKS} blanks"),
        ));
    }
    let client = client(peer, request.user.as_deref());
    let (mut answers, mut usage) = (Vec::new(), Usage::default());
    while let Some(prompt) = fill.prompt() {
        let question = Question {
            prompts: vec![prompt],
            choices: 1,
            request: answer.clone(),
            readers: vec![Reader::new(stream.clone(), None)],
        };
        let blank = answered(
            served.ask(question, client, deadline).await?,
            &mut usage,
            answer.sampling.seed,
        )
        .await;
        record.set(usage);
        let (blank, is_cut, is_context) = blank?;
        // A stop string ended the text, and the ids contain more than it.
        let put = |fill: &mut Fill| match is_cut {
            false => fill.fill(tokenizer, &blank.ids),
            true => fill.fill(tokenizer, &tokenizer.encode(&blank.text)?),
        };
        served.encode(|| Ok(put(&mut fill)?)).await?;
        answers.push(blank);
        if is_context {
            break;
        }
        // A different seed for each blank.
        answer.sampling.seed = answer.sampling.seed.wrapping_add(1);
    }
    let (text, spans) = (fill.written(), fill.spans().to_vec());
    Ok(Json(FilledText { text, spans, answers, usage: usage.into() }))
}

/// What fills a blank, whether a stop string ended it, and whether the context did.
async fn answered(
    mut answers: Answers,
    usage: &mut Usage,
    seed: u64,
) -> Result<(BlankAnswer, bool, bool)> {
    let (mut text, mut ids, mut finish, mut is_cut) =
        (String::new(), Vec::new(), FinishReason::Stop, false);
    while let Some(step) = answers.next().await? {
        text += &step.text();
        // A stop string is found with a token; other ends have none.
        is_cut = step.finish.is_some() && step.token.is_some();
        finish = step.finish.unwrap_or(finish);
        ids.extend(step.token.map(|token| token.id));
    }
    let used = answers.usage();
    usage.prompt += used.prompt;
    usage.cached += used.cached;
    usage.answer += used.answer;
    let blank = BlankAnswer { text, ids, finish: finish.name(), prompt_tokens: used.prompt, seed };
    Ok((blank, is_cut, finish == FinishReason::Context))
}
