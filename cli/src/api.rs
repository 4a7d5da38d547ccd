//! Requests and responses of OpenAI's API: what `glm serve` and `glm batch` have in common.
//!
//! ```text
//! body            JSON to a request; fields: those of its JSON values
//! chat, completions, responses     a request to a question; steps to a response
//! blocks          what the answer of such a response consists of
//! form            JSON, grammars, calls that an answer must be
//! sampling        fields of all requests
//! model           the model: names, limits, questions to submissions
//! answer          events of a batch to steps of answers
//! ```

pub mod answer;
pub mod blocks;
pub mod body;
pub mod chat;
pub mod completions;
pub mod error;
pub mod fields;
pub mod form;
pub mod logprobs;
pub mod model;
pub mod responses;
pub mod sampling;
pub mod usage;
