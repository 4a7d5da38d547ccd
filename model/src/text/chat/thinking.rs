//! Thoughts before an answer: what a model can do, and whether a prompt begins them.

use super::answer::{self, Thoughts};
use super::{Kind, PromptOptions, Template};
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;

/// The variable by which a template is told whether the model is to think.
pub(super) const ENABLE_THINKING: &str = "enable_thinking";

/// The variable by which a template is told whether to leave out old thoughts.
pub(super) const CLEAR_THINKING: &str = "clear_thinking";

/// When a model thinks before it answers, as far as its template says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Thinking {
    /// Its template knows no thoughts.
    Never,
    /// Its template knows thoughts, and no way to stop them.
    Always,
    /// As [`PromptOptions::thinking`] says.
    Switchable,
}

impl Template {
    /// When the model thinks before it answers.
    pub fn thinking(&self) -> Thinking {
        match &self.0 {
            Kind::Jinja(_, jinja) => jinja.thinking(),
            Kind::Roles | Kind::Rounds(_) | Kind::Plain => Thinking::Never,
        }
    }

    /// Checks that the model can do what the options ask for.
    ///
    /// # Errors
    /// If it is to think and cannot, is not to think and always does, or is to see old thoughts that its template always leaves out.
    pub fn check_prompt_options(&self, options: PromptOptions) -> Result<()> {
        let problem = match (options.thinking, self.thinking()) {
            (Some(true), Thinking::Never) => "this model cannot think",
            (Some(false), Thinking::Always) => "this model always thinks",
            _ if options.clear_thinking == Some(false) && !self.keeps_thoughts() => {
                return Err(Error::Prompt(format!(
                    "this model never sees its old thoughts: its template has no variable {CLEAR_THINKING}"
                )));
            }
            _ => return Ok(()),
        };
        Err(Error::Prompt(format!("{problem}: its template has no variable {ENABLE_THINKING}")))
    }

    /// Whether the template can be told to keep old thoughts.
    fn keeps_thoughts(&self) -> bool {
        matches!(&self.0, Kind::Jinja(_, jinja) if jinja.knows(CLEAR_THINKING))
    }

    /// Whether the answer to a prompt may begin with thoughts.
    pub(crate) fn thoughts(&self, tokenizer: &Tokenizer, prompt: &[u32]) -> Thoughts {
        let Kind::Jinja(_, jinja) = &self.0 else { return Thoughts::None };
        // Where a tag is no token, it is a few.
        let tail = &prompt[prompt.len().saturating_sub(16)..];
        let tail = tokenizer.decode(tail).unwrap_or_default();
        match tail.trim_end() {
            _ if jinja.thinking() == Thinking::Never => Thoughts::None,
            tail if tail.ends_with(answer::END) => Thoughts::None,
            tail if tail.ends_with(answer::THINK) => Thoughts::Begun,
            _ => Thoughts::Possible,
        }
    }
}
