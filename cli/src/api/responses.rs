//! Conversations that are to be answered, and the answers, in the form of OpenAI's newer API.

pub mod request;
pub mod response;
