//! The prompt of ChatGLM3: each message follows the id of its role.
//!
//! ```text
//! [gMASK] sop  <|system|> metadata \n content  <|user|> \n content  …  <|assistant|>
//! ```
//!
//! The metadata line and the content are encoded separately, so SentencePiece puts a blank before each. Tools are appended
//! to the content of their system message as JSON. A call is a message whose metadata is the name of the tool, and whose
//! content is a call in Python:
//!
//! ```text
//! <|assistant|> get_weather \n  ```python \n tool_call(city='北京', days=3) \n ```
//! ```
//!
//! Names of special ids in messages are text: the tokenizer finds none.

use super::message::{Message, Role, ToolCall};
use super::python;
use super::tools::functions;
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
    let mut write = |by, metadata: &str, content: &str| {
        ids.push(role(tokenizer, by)?);
        ids.extend(tokenizer.encode(&format!("{metadata}\n"))?);
        ids.extend(tokenizer.encode(content)?);
        Ok(())
    };
    for message in messages {
        let content = content(message);
        if message.tool_calls.is_empty() || !content.is_empty() {
            write(message.role, message.metadata.as_deref().unwrap_or_default(), &content)?;
        }
        for ToolCall { name, arguments, .. } in &message.tool_calls {
            let arguments = python::keywords(arguments);
            let call = format!(" ```python\ntool_call({arguments})\n```");
            write(Role::Assistant, name, &call)?;
        }
    }
    ids.push(role(tokenizer, Role::Assistant)?);
    Ok(ids)
}

/// The instructions before tools where the conversation has none: those of the published examples.
const TOOLS: &str =
    "Answer the following questions as best as you can. You have access to the following tools:";

fn content(message: &Message) -> String {
    match (&message.tools, message.role) {
        (Some(tools), Role::System) => {
            let instructions = if message.content.is_empty() { TOOLS } else { &message.content };
            format!("{instructions}\n{}", python::json(&functions(tools), Some(4)))
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
