//! The prompt of ChatGLM3: each message follows the id of its role.
//!
//! ```text
//! [gMASK] sop  <|system|> metadata \n content  <|user|> \n content  …  <|assistant|>
//! ```
//!
//! The metadata line and the content are encoded separately, so SentencePiece puts a blank before each. Tools are appended
//! to the content of their system message as JSON.

use super::message::{Message, Role};
use super::python;
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;

pub(super) fn ids(tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
    match messages.last().map(|message| message.role) {
        Some(Role::User | Role::Observation | Role::Tool) => {}
        None => return Err(Error::Prompt("the conversation is empty".into())),
        Some(role) => {
            let problem = format!(
                "the conversation ends with a message by {}; it must be user or observation",
                role.name()
            );
            return Err(Error::Prompt(problem));
        }
    }
    let mut ids = tokenizer.special().before.clone();
    for message in messages {
        ids.push(role(tokenizer, message.role)?);
        let metadata = message.metadata.as_deref().unwrap_or_default();
        ids.extend(tokenizer.encode(&format!("{metadata}\n"))?);
        ids.extend(tokenizer.encode(&content(message))?);
    }
    ids.push(role(tokenizer, Role::Assistant)?);
    Ok(ids)
}

fn content(message: &Message) -> String {
    match (&message.tools, message.role) {
        (Some(tools), Role::System) => {
            format!("{}\n{}", message.content, python::json(tools, Some(4)))
        }
        _ => message.content.clone(),
    }
}

fn role(tokenizer: &Tokenizer, role: Role) -> Result<u32> {
    let name = match role {
        Role::Tool => "<|observation|>".to_owned(),
        role => format!("<|{}|>", role.name()),
    };
    let problem = || Error::Prompt(format!("the tokenizer has no {name}: it is not ChatGLM3's"));
    tokenizer.id(&name).ok_or_else(problem)
}

/// That the tokenizer has the ids of all roles.
pub(super) fn check(tokenizer: &Tokenizer) -> Result<()> {
    let all = [Role::System, Role::User, Role::Assistant, Role::Observation];
    all.into_iter().try_for_each(|of| role(tokenizer, of).map(drop))
}
