//! Prompts from conversations and from texts with blanks, and postprocessing of answers.
//!
//! A [`Template`] turns a conversation into a prompt. Each model was trained with one of these:
//!
//! ```text
//! chatglm     ChatGLM-6B                    questions and answers in rounds, numbered from 0
//! chatglm2    ChatGLM2-6B                   the same, numbered from 1
//! chatglm3    ChatGLM3-6B                   roles, tools
//! glm4        GLM-4                         roles, tools; written in Jinja
//! plain       base models, CodeGeeX2        the text alone
//! the model's own chat_template             written in Jinja
//! ```

mod answer;
mod fill;
mod jinja;
mod marks;
mod message;
mod prompt;
pub(crate) mod python;
mod roles;
mod rounds;
mod stored;
mod thinking;
pub(crate) mod tools;
mod transformers;

use crate::error::{Error, Result};
use crate::files::model_dir::ModelDir;
use crate::files::model_path::ModelPath;
use crate::files::variant::is_base;
use crate::text::postprocess::Postprocess;
use crate::text::stream::TextStream;
use crate::text::tokenizer::{Family, Tokenizer};
pub(crate) use answer::CallForm;
use answer::Expects;
#[cfg(feature = "grammar")]
pub(crate) use answer::Thoughts;
pub use answer::{AnswerEvent, AnswerParser};
pub use fill::{Blank, Fill, answer_ids, blank, fill_prompt, has_blank};
pub(crate) use fill::{kinds as blank_kinds, prompt_between};
use jinja::Jinja;
pub use message::{Message, Role, ToolCall};
pub use prompt::{PromptOptions, SpecialNames};
use rounds::Rounds;
use serde_json::{Map, Value};
use std::path::Path;
use stored::own;
pub use thinking::Thinking;
use tools::Offered;
pub use tools::offer_tools;
use transformers::{conversation, marks};

/// GLM-4's template, as published but without the branches for the tools of its first hosted service.
const GLM4: &str = "glm4";

/// Turns a conversation into a prompt.
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
    /// If there is none. The error lists the names that exist.
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

    /// Opens the template of a model folder. `tokenizer` is the tokenizer of the same folder.
    ///
    /// ChatGLM-6B, ChatGLM2 and ChatGLM3 have built-in templates. All others use `chat_template.jinja` or the `chat_template` in
    /// `tokenizer_config.json`. Without either, a tokenizer with tiktoken ranks gets GLM-4's template, and the rest `plain`.
    ///
    /// ChatGLM2 and ChatGLM3 have the same tensors, so other evidence decides: the special ids that the files of the tokenizer list,
    /// their `chat_template`, the published code beside the weights, and then names: those in `config.json` and
    /// `tokenizer_config.json`, of the folder, of links to it and of the folders around it. See [`ModelPath::of_variant`]. A name
    /// with the word "base", with "codegeex2", or that is just "glm-4-9b" means `plain`.
    ///
    /// # Errors
    /// If a file cannot be read, or its template is not valid.
    pub fn open(dir: impl Into<ModelPath>, tokenizer: &Tokenizer) -> Result<Self> {
        Self::of_folder(&ModelDir::open(dir)?, tokenizer)
    }

    /// The same from files in memory, given by name.
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

    /// The prompt of a conversation as text. It is `None` for ChatGLM3, whose roles have no text form.
    ///
    /// # Errors
    /// If the template does not allow a message, or the conversation does not end with a message that is to be answered.
    pub fn text(&self, messages: &[Message]) -> Result<Option<String>> {
        Ok(match &self.0 {
            Kind::Rounds(rounds) => Some(rounds.text(messages, SpecialNames::Ids)?),
            Kind::Jinja(_, jinja) => {
                let variables = PromptOptions::default().variables();
                Some(jinja.render(conversation(messages, jinja.wants(), None), &variables)?)
            }
            Kind::Plain => Some(plain(messages)?.to_owned()),
            Kind::Roles => None,
        })
    }

    /// The prompt of a conversation as ids: those of its text, and those that the tokenizer adds around it, such as `[gMASK]`
    /// and `<sop>`. Names of special ids inside of messages are read as in the published code; see [`Template::prompt_ids_with`].
    ///
    /// # Errors
    /// As [`Template::text`] and [`Tokenizer::encode`], and if the tokenizer lacks an id that the template needs.
    pub fn prompt_ids(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        self.prompt_ids_with(tokenizer, messages, PromptOptions::default())
    }

    /// The same with options. A message without names of special ids gives the same ids with every [`SpecialNames`].
    ///
    /// # Errors
    /// As [`Template::prompt_ids`] and [`Template::check_prompt_options`].
    pub fn prompt_ids_with(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: PromptOptions,
    ) -> Result<Vec<u32>> {
        self.check_prompt_options(options)?;
        let (names, variables) = (options.special_names, options.variables());
        match &self.0 {
            // They are found in no message.
            Kind::Roles => roles::ids(tokenizer, messages),
            // The template writes the ids around the text itself.
            Kind::Jinja(_, jinja) if names == SpecialNames::Ids => {
                let conversation = conversation(messages, jinja.wants(), None);
                tokenizer.encode_with_roles(&jinja.render(conversation, &variables)?)
            }
            Kind::Jinja(_, jinja) => {
                let marks = marks(tokenizer, messages, jinja.source())?;
                let conversation = conversation(messages, jinja.wants(), Some(&marks));
                tokenizer.encode_marked(&jinja.render(conversation, &variables)?, marks.mark())
            }
            Kind::Rounds(rounds) => around(tokenizer, &rounds.text(messages, names)?, names),
            Kind::Plain => text_ids(tokenizer, plain(messages)?, names),
        }
    }

    /// Checks that a tokenizer has the ids that the template needs.
    ///
    /// # Errors
    /// If it lacks one, naming it.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        match &self.0 {
            Kind::Roles => roles::check(tokenizer),
            // The others are texts, which any tokenizer can encode.
            Kind::Jinja(..) | Kind::Rounds(_) | Kind::Plain => Ok(()),
        }
    }

    /// The ids that end an answer: those of the tokenizer, and in templates with roles the roles that may follow an answer.
    pub fn stop_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids = tokenizer.special().ids.ends.clone();
        if matches!(self.0, Kind::Roles | Kind::Jinja(..)) {
            ids.extend(
                ["<|user|>", "<|observation|>"].iter().filter_map(|role| tokenizer.id(role)),
            );
        }
        ids
    }

    /// The ids of a prompt, and of given answers that follow it, for scoring. If the prompt ends with the name of a role, the
    /// newline after the name is part of the prompt. If prompt and answer are one text, they are encoded together, unless a
    /// token then spans their boundary.
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

    /// An answer as the official `chat()` of the model returns it: white space at both ends is stripped, the placeholder
    /// `[[训练时间]]` is replaced, and for ChatGLM-6B `,` `!` `:` `;` `?` next to a Chinese character become full-width. With
    /// the template `plain` the text is unchanged.
    pub fn response(&self, decoded: &str) -> String {
        let Some(mut postprocess) = self.postprocess() else { return decoded.to_owned() };
        let mut out = String::new();
        postprocess.push(decoded, &mut out);
        postprocess.finish(&mut out);
        out
    }

    /// A stream that decodes an answer while it is generated: without special ids, and postprocessed as by
    /// [`Template::response`].
    pub fn stream<'t>(&self, tokenizer: &'t Tokenizer) -> TextStream<'t> {
        TextStream::new(tokenizer).without_special().postprocessed(self.postprocess())
    }

    /// A parser of the answer to a prompt, for the text that [`Template::stream`] returns.
    ///
    /// `tools` are those that the messages offer. Without tools there are no calls: what looks like one is text. The identifiers
    /// of calls are `id` and the number of the call.
    pub fn answer_parser(
        &self,
        tokenizer: &Tokenizer,
        prompt: &[u32],
        tools: Option<&Value>,
        id: impl Into<String>,
    ) -> AnswerParser {
        let calls = self.call_form().zip(tools.map(Offered::new));
        AnswerParser::new(Expects { calls, thoughts: self.thoughts(tokenizer, prompt) }, id.into())
    }

    /// How the model writes calls of tools. `None` if it cannot.
    pub(crate) fn call_form(&self) -> Option<CallForm> {
        match &self.0 {
            Kind::Roles => Some(CallForm::Python),
            Kind::Jinja(_, jinja) => jinja.call_form(),
            Kind::Rounds(_) | Kind::Plain => None,
        }
    }

    fn postprocess(&self) -> Option<Postprocess> {
        match self.0 {
            Kind::Rounds(rounds) => Some(Postprocess::new(rounds.widens)),
            // In templates with roles, an answer begins on the line after its role.
            Kind::Roles | Kind::Jinja(..) => Some(Postprocess::new(false)),
            Kind::Plain => None,
        }
    }
}

/// Whether the model has a role for observations and none for tools.
fn observes(tokenizer: &Tokenizer) -> bool {
    tokenizer.id("<|observation|>").is_some() && tokenizer.id("<|tool|>").is_none()
}

/// The only message of a conversation for the template `plain`.
fn plain(messages: &[Message]) -> Result<&str> {
    match messages {
        [Message { role: Role::User, content, .. }] => Ok(content),
        _ => Err(Error::Prompt(
            "this model continues a text and has no form for conversations: begin a new one for every text (/clear in a \
             chat), or name another template"
                .into(),
        )),
    }
}

/// The prompt of a text that the model continues.
fn text_ids(tokenizer: &Tokenizer, text: &str, names: SpecialNames) -> Result<Vec<u32>> {
    match tokenizer.family() {
        Family::Glm10b | Family::Glm130b => {
            Ok(Fill::to_continue(tokenizer, text, names)?.prompt().unwrap_or_default())
        }
        _ => around(tokenizer, text, names),
    }
}

fn around(tokenizer: &Tokenizer, text: &str, names: SpecialNames) -> Result<Vec<u32>> {
    let special = tokenizer.special();
    Ok([&special.before[..], &names.encode(tokenizer, text)?, &special.after].concat())
}

#[cfg(test)]
mod tests;
