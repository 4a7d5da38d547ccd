//! Fields of requests that say how an answer is sampled and where it ends.

use glm_model::{Bundle, Request, TextStream};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::{ApiError, Result};
use crate::args::random_seed;
use crate::limits::request::MOST_STOPS;

/// One text, or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Strings {
    One(String),
    Many(Vec<String>),
}

impl Strings {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// A request with the fields of [`Sampled`] beside its own. Flattened by serde, they would be the same, but unknown fields and the names
/// of wrong ones would be lost.
macro_rules! sampled_request {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$field_about:meta])* pub $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, serde::Deserialize, utoipa::ToSchema)]
        pub struct $name {
            $($(#[$field_about])* pub $field: $type,)*
            /// The name of the model. Without it, the model that the server has.
            pub model: Option<String>,
            /// Higher is more varied, 0 is greedy. The default of each sampling field is the model's own.
            pub temperature: Option<f32>,
            /// The likeliest tokens whose probabilities reach this sum.
            pub top_p: Option<f32>,
            /// The N likeliest tokens; 0 or less means all.
            pub top_k: Option<i64>,
            /// Tokens with at least this fraction of the largest probability.
            pub min_p: Option<f32>,
            /// Above 1, tokens that occurred before become less likely.
            pub repetition_penalty: Option<f32>,
            /// Subtracted from the logits of tokens for each time that they are in the answer; from -2 to 2.
            pub frequency_penalty: Option<f32>,
            /// Subtracted from the logits of tokens that are in the answer; from -2 to 2.
            pub presence_penalty: Option<f32>,
            /// Not supported: it must be empty.
            pub logit_bias: Option<serde_json::Map<String, serde_json::Value>>,
            /// The same seed gives the same answer. Without it, a random one.
            pub seed: Option<i64>,
            /// Texts before which the answer ends; up to 16.
            pub stop: Option<$crate::api::sampling::Strings>,
            /// Most tokens of an answer.
            pub max_tokens: Option<usize>,
            /// Go on after the end of the answer, up to `max_tokens`.
            pub ignore_eos: Option<bool>,
            /// A name of the user. Requests take turns between the users of an address.
            pub user: Option<String>,
        }

        impl $name {
            /// How the answer is sampled.
            pub fn sampled(&mut self) -> $crate::api::sampling::Sampled {
                $crate::api::sampling::Sampled {
                    temperature: self.temperature,
                    top_p: self.top_p,
                    top_k: self.top_k,
                    min_p: self.min_p,
                    repetition_penalty: self.repetition_penalty,
                    frequency_penalty: self.frequency_penalty,
                    presence_penalty: self.presence_penalty,
                    logit_bias: self.logit_bias.take(),
                    seed: self.seed,
                    stop: self.stop.take().map_or_else(Vec::new, |stop| stop.into_vec()),
                    max_tokens: self.max_tokens,
                    ignore_eos: self.ignore_eos.unwrap_or(false),
                }
            }
        }
    };
}
pub(crate) use sampled_request;

/// How an answer is sampled and where it ends.
#[derive(Debug, Default)]
pub struct Sampled {
    pub temperature: Option<f32>,
    pub top_p: Option<f32>,
    pub top_k: Option<i64>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub frequency_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
    pub logit_bias: Option<Map<String, Value>>,
    pub seed: Option<i64>,
    pub stop: Vec<String>,
    pub max_tokens: Option<usize>,
    pub ignore_eos: bool,
}

/// How many answers to a prompt are asked for by the field `n`.
///
/// # Errors
/// If it is 0.
pub fn choices(n: Option<usize>) -> Result<usize> {
    match n.unwrap_or(1) {
        0 => Err(ApiError::field("n", "n must be at least 1")),
        choices => Ok(choices),
    }
}

impl Sampled {
    /// A text that ends before the first stop string.
    ///
    /// # Errors
    /// If there are too many strings, or one is empty or too long.
    pub fn stopping<'t>(&self, stream: TextStream<'t>) -> Result<TextStream<'t>> {
        if self.stop.len() > MOST_STOPS {
            let problem = format!("stop has more than {MOST_STOPS} strings");
            return Err(ApiError::field("stop", problem));
        }
        let stream = stream.stopping_at(&self.stop);
        stream.map_err(|error| ApiError::from(error).with_param("stop"))
    }

    /// What is asked of the model: these settings, and its own where there is none.
    ///
    /// # Errors
    /// If a field is outside its range or not supported.
    pub fn request(&self, bundle: &Bundle) -> Result<Request> {
        if self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()) {
            return Err(ApiError::field("logit_bias", "logit_bias is not supported"));
        }
        if self.max_tokens == Some(0) {
            return Err(ApiError::field("max_tokens", "max_tokens must be at least 1"));
        }
        // Negative seeds are seeds as well.
        let seed = self.seed.map_or_else(random_seed, i64::cast_unsigned);
        let mut request = bundle.request(seed);
        let sampling = &mut request.sampling;
        for (given, set) in [
            (self.temperature, &mut sampling.temperature),
            (self.top_p, &mut sampling.top_p),
            (self.min_p, &mut sampling.min_p),
            (self.repetition_penalty, &mut sampling.repetition_penalty),
            (self.frequency_penalty, &mut sampling.frequency_penalty),
            (self.presence_penalty, &mut sampling.presence_penalty),
        ] {
            *set = given.unwrap_or(*set);
        }
        let top_k = self.top_k.map(|top_k| usize::try_from(top_k).unwrap_or(0));
        sampling.top_k = top_k.unwrap_or(sampling.top_k);
        sampling.validate()?;
        request.max_new_tokens = self.max_tokens;
        if self.ignore_eos {
            request.stop_ids.clear();
        }
        Ok(request)
    }
}
