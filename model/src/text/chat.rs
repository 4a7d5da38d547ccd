//! Conversations and texts with blanks, as the models want to see them, and the polish of answers.
//!
//! A [`Template`] makes a prompt of a conversation. Which one a model has been trained with:
//!
//! ```text
//! chatglm     ChatGLM-6B                    questions and answers in rounds, from 0
//! chatglm2    ChatGLM2-6B                   the same, from 1
//! chatglm3    ChatGLM3-6B                   roles, tools
//! glm4        GLM-4                         roles, tools; written in Jinja
//! plain       base models, CodeGeeX2        the text alone
//! the model's own chat_template             written in Jinja
//! ```

mod fill;
mod jinja;
mod message;
mod python;
mod roles;
mod rounds;

use crate::error::{Error, Result};
use crate::files::model_dir::{ModelDir, TEMPLATE as JINJA_FILE};
use crate::files::variant::is_base;
use crate::text::postprocess::Postprocess;
use crate::text::stream::TextStream;
use crate::text::tokenizer::{Family, SETTINGS_FILE, Tokenizer};
pub use fill::{Blank, Fill, answer_ids, blank, fill_prompt, has_blank};
use jinja::Jinja;
pub use message::{Message, Role};
use rounds::Rounds;
use serde_json::{Map, Value};
use std::path::Path;

/// GLM-4's template, as published but for the branches of the tools that were built into its first
/// service.
const GLM4: &str = "glm4";

/// How a conversation becomes a prompt.
#[derive(Debug, Clone)]
pub struct Template(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Rounds(&'static Rounds),
    Roles,
    Jinja(&'static str, Box<Jinja>),
    Plain,
}

impl Template {
    /// The names that [`Template::named`] knows.
    pub const NAMES: [&str; 5] = ["chatglm", "chatglm2", "chatglm3", "glm4", "plain"];

    /// The template with this name, one of [`Template::NAMES`].
    ///
    /// # Errors
    /// If there is none; the error lists those that there are.
    pub fn named(name: &str) -> Result<Self> {
        let kind = match name {
            "chatglm" => Kind::Rounds(&rounds::CHATGLM),
            "chatglm2" => Kind::Rounds(&rounds::CHATGLM2),
            "chatglm3" => Kind::Roles,
            GLM4 => {
                let path = Path::new(GLM4);
                let source = include_str!("chat/glm4.jinja").to_owned();
                Kind::Jinja(GLM4, Box::new(Jinja::new(source, Map::new(), path)?))
            }
            "plain" => Kind::Plain,
            _ => {
                return Err(Error::Setting {
                    setting: "template",
                    range: format!("one of {}", Self::NAMES.join(", ")),
                    found: name.to_owned(),
                });
            }
        };
        Ok(Template(kind))
    }

    /// The template of a model's folder, whose tokenizer this is.
    ///
    /// ChatGLM-6B, ChatGLM2 and ChatGLM3 have their own. For all others it is `chat_template.jinja` or the `chat_template` in
    /// `tokenizer_config.json`; where there is none, GLM-4's for a tokenizer with tiktoken ranks, and plain for the rest.
    ///
    /// ChatGLM2 and ChatGLM3 share their files, so a name decides: that in `config.json` (`_name_or_path`), that in
    /// `tokenizer_config.json` (`name_or_path`) or the folder's own, the first that says something; without one it is ChatGLM3.
    /// "base" as a word of that name, "codegeex2", or "glm-4-9b" alone means a plain text.
    ///
    /// # Errors
    /// If a file cannot be read or has no sound template.
    pub fn open(dir: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Self> {
        Self::of_folder(&ModelDir::open(dir.as_ref())?, tokenizer)
    }

    /// The same from files that are in memory, by their names.
    ///
    /// # Errors
    /// As [`Template::open`].
    pub fn from_files(files: &[(&str, &[u8])], tokenizer: &Tokenizer) -> Result<Self> {
        Self::of_folder(&ModelDir::of(files), tokenizer)
    }

    fn of_folder(folder: &ModelDir, tokenizer: &Tokenizer) -> Result<Self> {
        let family = tokenizer.family();
        if let (Family::Glm4 | Family::Other, Some(jinja)) = (family, own(folder)?) {
            let jinja = jinja.observing(observes(tokenizer));
            return Ok(Template(Kind::Jinja("chat_template", Box::new(jinja))));
        }
        Self::named(match family {
            _ if is_base(folder)? => "plain",
            Family::ChatGlm => "chatglm",
            Family::ChatGlm2 => "chatglm2",
            Family::ChatGlm3 => "chatglm3",
            Family::Glm4 => GLM4,
            Family::Glm10b | Family::Glm130b | Family::Other => "plain",
        })
    }

    /// Its name: one of [`Template::NAMES`], or `chat_template` for a model's own.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Rounds(rounds) => rounds.name,
            Kind::Jinja(name, _) => name,
            Kind::Roles => "chatglm3",
            Kind::Plain => "plain",
        }
    }

    /// The prompt of a conversation as text; `None` for ChatGLM3, whose roles have no text form.
    ///
    /// # Errors
    /// If the template has no place for a message, or the conversation does not end where an answer
    /// follows.
    pub fn text(&self, messages: &[Message]) -> Result<Option<String>> {
        Ok(match &self.0 {
            Kind::Rounds(rounds) => Some(rounds.text(messages)?),
            Kind::Jinja(_, jinja) => Some(jinja.render(messages)?),
            Kind::Plain => Some(plain(messages)?.to_owned()),
            Kind::Roles => None,
        })
    }

    /// The prompt of a conversation: its text's ids and what the tokenizer puts around them, such as
    /// `[gMASK]` and `<sop>`.
    ///
    /// # Errors
    /// As [`Template::text`] and [`Tokenizer::encode`]; and if the tokenizer lacks an id that the
    /// template needs.
    pub fn prompt_ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        match &self.0 {
            Kind::Roles => roles::ids(tokenizer, messages),
            // The ids around it are part of the template.
            Kind::Jinja(_, jinja) => tokenizer.encode_with_roles(&jinja.render(messages)?),
            Kind::Rounds(rounds) => around(tokenizer, &rounds.text(messages)?),
            Kind::Plain => text_ids(tokenizer, plain(messages)?),
        }
    }

    /// The ids that end an answer: the tokenizer's, and in conversations of roles those of whoever would
    /// speak next.
    pub fn stop_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = tokenizer.special().ids.ends.clone();
        if matches!(self.0, Kind::Roles | Kind::Jinja(..)) {
            ids.extend(
                ["<|user|>", "<|observation|>"].iter().filter_map(|role| tokenizer.id(role)),
            );
        }
        ids
    }

    /// The ids of a prompt and of answers that are given rather than generated, as they follow it. Where the prompt ends with
    /// the name of a role, it gets the end of that line, too; where prompt and answer are one text, that is encoded whole, unless
    /// its pieces then are others at the seam.
    ///
    /// # Errors
    /// As [`Template::prompt_ids`].
    pub fn with_answers(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        answers: &[impl AsRef<str>],
    ) -> Result<(Vec<u32>, Vec<Vec<u32>>)> {
        let mut prompt = self.prompt_ids(tokenizer, messages)?;
        let assistant = tokenizer.id("<|assistant|>");
        if assistant.is_some() && prompt.last().copied() == assistant {
            prompt.extend(tokenizer.encode("\n")?);
        }
        let follow = |answer: &str| {
            if let (Kind::Plain, [message]) = (&self.0, messages) {
                let content = format!("{}{answer}", message.content);
                let whole =
                    self.prompt_ids(tokenizer, &[Message { content, ..message.clone() }])?;
                if let Some(answer) = whole.strip_prefix(&prompt[..]) {
                    return Ok(answer.to_vec());
                }
            }
            tokenizer.encode(answer)
        };
        let answers =
            answers.iter().map(|answer| follow(answer.as_ref())).collect::<Result<_>>()?;
        Ok((prompt, answers))
    }

    /// An answer as the model's official `chat()` returns it: without white space at both ends and with the placeholder
    /// `[[训练时间]]` filled in, for ChatGLM-6B also with full-width `,` `!` `:` `;` `?` next to a Chinese character. Plain text
    /// stays as it is.
    pub fn response(&self, decoded: &str) -> String {
        let Some(mut polish) = self.polish() else { return decoded.to_owned() };
        let mut out = String::new();
        polish.push(decoded, &mut out);
        polish.finish(&mut out);
        out
    }

    /// An answer's text as it is generated: without special ids, and polished as [`Template::response`] does.
    pub fn stream<'t>(&self, tokenizer: &'t Tokenizer) -> TextStream<'t> {
        TextStream::new(tokenizer).without_special().polished(self.polish())
    }

    fn polish(&self) -> Option<Postprocess> {
        match self.0 {
            Kind::Rounds(rounds) => Some(Postprocess::new(rounds.widens)),
            // Where roles have names, an answer begins in the line after that of its role.
            Kind::Roles | Kind::Jinja(..) => Some(Postprocess::new(false)),
            Kind::Plain => None,
        }
    }
}

/// Whether the model knows what tools answer as observations alone.
fn observes(tokenizer: &Tokenizer) -> bool {
    tokenizer.id("<|observation|>").is_some() && tokenizer.id("<|tool|>").is_none()
}

/// The only message of a conversation without a form.
fn plain(messages: &[Message]) -> Result<&str> {
    match messages {
        [Message { role: Role::User, content, .. }] => Ok(content),
        _ => Err(Error::Prompt(
            "this model continues a text and knows no conversations: begin anew for every text (/clear in a chat), or name \
             another template"
                .into(),
        )),
    }
}

/// A text to be continued, as far as the tokenizer's model can do that.
fn text_ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    match tokenizer.family() {
        Family::Glm10b | Family::Glm130b => {
            Ok(Fill::to_continue(tokenizer, text)?.prompt().unwrap_or_default())
        }
        _ => around(tokenizer, text),
    }
}

fn around(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let special = tokenizer.special();
    Ok([&special.before[..], &tokenizer.encode(text)?, &special.after].concat())
}

/// The folder's own template.
fn own(folder: &ModelDir) -> Result<Option<Jinja>> {
    let mut settings = folder.json(SETTINGS_FILE)?;
    let template = settings.remove("chat_template");
    let tokens = special_names(settings);
    if folder.has(JINJA_FILE) {
        let source = String::from_utf8(folder.read(JINJA_FILE)?.into_owned());
        let source = source.map_err(|_| folder.error(JINJA_FILE, "is not UTF-8"))?;
        return Jinja::new(source, tokens, &folder.path().join(JINJA_FILE)).map(Some);
    }
    let source = match template {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(source)) => Some(source),
        // Several, with names.
        Some(other) => {
            let named = other.as_array().into_iter().flatten();
            let default = named.filter(|template| template["name"] == "default");
            default.filter_map(|template| template["template"].as_str()).next().map(str::to_owned)
        }
    };
    let problem = "chat_template is neither a text nor a list with one named \"default\"";
    let source = source.ok_or_else(|| folder.error(SETTINGS_FILE, problem))?;
    Jinja::new(source, tokens, &folder.path().join(SETTINGS_FILE)).map(Some)
}

/// `eos_token` and the like.
fn special_names(settings: Map<String, Value>) -> Map<String, Value> {
    let is_name = |key: &str| key.ends_with("_token");
    let name = |value: Value| match value {
        Value::String(_) => Some(value),
        Value::Object(mut object) => object.remove("content").filter(Value::is_string),
        _ => None,
    };
    let named = settings.into_iter().filter(|(key, _)| is_name(key));
    named.filter_map(|(key, value)| Some((key, name(value)?))).collect()
}

#[cfg(test)]
mod tests;
