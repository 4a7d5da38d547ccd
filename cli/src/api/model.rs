//! The model that answers requests.

use std::time::{SystemTime, UNIX_EPOCH};

use glm_model::{
    Bundle, Error, Model, Request, SpecialNames, Submission, Template, Tokenizer, check_prompt,
};

use super::answer::Reader;
use super::error::{ApiError, Result};
use crate::args::Source;
use crate::models::Choice;

/// Most alternatives of a token.
pub const MOST_LOGPROBS: usize = 20;

/// The model that answers requests.
pub struct ApiModel {
    /// It lives as long as the process.
    bundle: &'static Bundle,
    /// How a text that is continued becomes a prompt.
    plain: Template,
    context: usize,
    /// The name of the model, and others for it.
    names: Vec<String>,
    created: u64,
    /// What names of special tokens in messages are.
    special_names: SpecialNames,
    /// Most answers to a request.
    most_answers: usize,
}

/// What is asked of the model.
pub struct Question {
    pub prompts: Vec<Vec<u32>>,
    /// Answers to each prompt.
    pub choices: usize,
    pub request: Request,
    /// How each choice of each prompt is read.
    pub readers: Vec<Reader>,
}

impl ApiModel {
    /// The model under its own name and these others.
    ///
    /// # Errors
    /// If the context is larger than the model allows.
    pub fn new(
        bundle: Bundle,
        source: &Source,
        alias: &[String],
        context: Option<usize>,
        special_tokens_in_text: bool,
        most_answers: usize,
    ) -> anyhow::Result<Self> {
        let context = bundle.model().sequence(context)?.capacity();
        let name = match source.choice()? {
            Choice::Folder(found) if found.stored.is_some() => found.name.clone(),
            Choice::Folder(found) => {
                let name = found.folder.canonicalize().unwrap_or_else(|_| found.folder.clone());
                name.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
            Choice::Demo => "demo".to_owned(),
        };
        Ok(Self {
            bundle: Box::leak(Box::new(bundle)),
            plain: Template::named("plain")?,
            context,
            names: [&[name], alias].concat(),
            created: now(),
            special_names: match special_tokens_in_text {
                true => SpecialNames::Ids,
                false => SpecialNames::Text,
            },
            most_answers,
        })
    }

    pub fn bundle(&self) -> &'static Bundle {
        self.bundle
    }

    pub fn model(&self) -> &'static Model {
        self.bundle.model()
    }

    pub fn tokenizer(&self) -> &'static Tokenizer {
        self.bundle.tokenizer()
    }

    /// How a text that is continued becomes a prompt.
    pub fn plain(&self) -> &Template {
        &self.plain
    }

    pub fn name(&self) -> &str {
        &self.names[0]
    }

    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the model was opened, in seconds of Unix.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Tokens of a context.
    pub fn context(&self) -> usize {
        self.context
    }

    /// What names of special tokens in messages are.
    pub fn special_names(&self) -> SpecialNames {
        self.special_names
    }

    /// Checks that a request is for this model.
    ///
    /// # Errors
    /// If it names another.
    pub fn check_name(&self, name: Option<&str>) -> Result<()> {
        match name {
            Some(name) if !self.names.iter().any(|own| own == name) => {
                let problem =
                    format!("the model here is {}; --alias gives it other names", self.name());
                let status = http::StatusCode::NOT_FOUND;
                Err(ApiError::new(status, problem).with_code("model_not_found").with_param("model"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that so many answers can be generated.
    ///
    /// # Errors
    /// If they are more than can be generated at the same time.
    pub fn check_answers(&self, count: usize) -> Result<()> {
        let most = self.most_answers;
        match count > most {
            true => Err(ApiError::field(
                "n",
                format!(
                    "{count} answers are asked for, and {most} are the most: see --max-sequences"
                ),
            )),
            false => Ok(()),
        }
    }

    pub fn check_prompt(&self, prompt: &[u32]) -> Result<()> {
        check_prompt(self.model(), prompt, self.context)?;
        let vocab = self.model().config().vocab;
        match prompt.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(Error::Ids(format!("{id} is no id: the model has {vocab}")).into()),
            None => Ok(()),
        }
    }

    /// The prompts of a question for a batch.
    ///
    /// # Errors
    /// If a prompt is empty, too long, or has ids that the model does not have.
    pub fn submissions(&self, question: &mut Question, client: u64) -> Result<Vec<Submission>> {
        question.prompts.iter().try_for_each(|prompt| self.check_prompt(prompt))?;
        let submissions = std::mem::take(&mut question.prompts).into_iter().map(|prompt| {
            let mut submission = Submission::new(prompt, question.request.clone());
            submission.choices = question.choices;
            submission.context = Some(self.context);
            submission.client = client;
            submission
        });
        Ok(submissions.collect())
    }
}

/// Seconds of Unix.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A name of its own for a response.
pub fn response_id(kind: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let [high, low] = [(); 2].map(|()| RandomState::new().hash_one(now()));
    format!("{kind}-{high:016x}{low:016x}")
}
